"""`ls`: the kernels of a cache."""

from __future__ import annotations

from pathlib import Path

from ..cache.outcome import Finding
from ..cache.record import Record
from ..cache.verify import blob_findings
from ..text.words import count, megabytes
from .inputs import existing_root
from .lines import finding_line, record_line
from .output import end_with, note, note_lines, print_json, print_lines


def list_(cache: Path | None, allow_untrusted: bool, as_json: bool) -> None:
    """List the kernels of a cache."""
    root = existing_root(cache, allow_untrusted)
    items = list(root.records())
    records = [item for item in items if isinstance(item, Record)]
    findings = [*(item for item in items if isinstance(item, Finding)), *blob_findings(root, records)]
    if as_json:
        print_json([record.render() for record in records])
    else:
        print_lines(map(record_line, records))
    note_lines(map(finding_line, findings))
    note(f"{count(len(records), 'kernel')}, {megabytes(sum(record.blob_bytes for record in records))}")
    end_with(findings)

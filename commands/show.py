"""`show`: all that is known of one kernel."""

from __future__ import annotations

from pathlib import Path

from ..cache.certificates import Certificates
from ..cache.claims import Claim
from ..cache.origins import Origins
from ..cache.outcome import Finding, error_of
from ..cache.record import Record
from ..cache.toolchain import Toolchain
from ..cache.verify import blob_findings
from ..errors import UsageError
from .inputs import existing_root
from .known_bad import known_of
from .lines import finding_line, record_document, record_lines
from .output import end_with, note_lines, print_json, print_lines


def show(kernel: str, cache: Path | None, allow_untrusted: bool, as_json: bool) -> None:
    """Show the kernel whose id begins so, and say what is wrong with it or with others of whom that can't be told."""
    root = existing_root(cache, allow_untrusted)
    items = list(root.records_like(kernel.lower()))
    records = [item for item in items if isinstance(item, Record)]
    findings = [
        *(item for item in items if isinstance(item, Finding)),
        *blob_findings(root, list(map(Claim.of, records))),
    ]
    origins = Origins(root)
    if not items:
        raise UsageError(
            f"no kernel of `{root.path}` has an id that begins with `{kernel}`", "`fa4-precompile ls` lists them"
        )
    if not records:
        raise error_of(findings[0])
    if len(records) > 1:
        raise UsageError(f"{len(records)} kernels have an id that begins with `{kernel}`", "give more digits")
    origin = origins.whole(records[0])
    certificates = Certificates(root, records[0].id)
    ran = certificates.of(records[0])
    toolchains = list(root.toolchains())
    known = known_of(toolchains, records[0])
    made_by = next((one for one in toolchains if isinstance(one, Toolchain) and one.id == records[0].toolchain), None)
    if as_json:
        document = record_document(records[0], origin, ran)
        print_json({**document, "known_bad": [entry.render() for entry in known]})
    else:
        print_lines(record_lines(records[0], origin, ran, root, known, made_by))
    findings += [*origins.findings, *certificates.findings, *(one for one in toolchains if isinstance(one, Finding))]
    note_lines(map(finding_line, findings))
    end_with(findings)

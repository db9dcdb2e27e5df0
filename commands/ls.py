"""`ls`: the kernels of a cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..cache.certificates import Certificates
from ..cache.claims import Claim
from ..cache.contents import Contents, Entry
from ..cache.listing import entries_of
from ..cache.manifest import Manifest
from ..cache.origins import Origins
from ..cache.outcome import Finding
from ..cache.record import Record
from ..cache.verify import blob_findings
from ..reports.cache_page import CachePage, Row
from ..text.words import count, megabytes
from .inputs import existing_root
from .lines import finding_line, record_document, record_line
from .output import end_with, note, note_lines, print_json, print_lines
from .pages import write_page


def list_(cache: Path | None, allow_untrusted: bool, html: Path | None, as_json: bool) -> None:
    """List the kernels of a cache."""
    root = existing_root(cache, allow_untrusted)
    origins, certificates = Origins(root), Certificates(root)
    claims: list[Claim] = []
    entries: list[Entry] = []
    findings: list[Finding] = []
    rows: list[Row] = []

    def records() -> Iterator[Record]:
        """Yield records one by one, and keep of each what its blob is compared with: all of them need much memory."""
        for one in root.listed():
            if isinstance(one, Finding):
                findings.append(one)
                continue
            entries.extend(entries_of(one))
            if isinstance(one.item, Record):
                claims.append(Claim.of(one.item))
                if html is not None:
                    rows.append(Row.of(one.item, origins.whole(one.item), certificates.of(one.item)))
                yield one.item

    if as_json:
        print_json([record_document(one, origins.whole(one), certificates.of(one)) for one in records()])
    else:
        print_lines(record_line(one, origins.of(one), certificates.of(one)) for one in records())
    findings += [*blob_findings(root, claims), *origins.findings, *certificates.findings]
    note_lines(map(finding_line, findings))
    note(f"{count(len(claims), 'kernel')}, {megabytes(sum(claim.blob_bytes for claim in claims))}")
    fingerprint = "" if findings else (root.sealed or Contents.of(entries)).fingerprint
    if fingerprint:
        note(f"fingerprint {fingerprint}")
    if html is not None:
        manifests = [one for one in root.manifests() if isinstance(one, Manifest)]
        page = CachePage(str(root.path), fingerprint, rows, manifests, list(map(finding_line, findings)))
        write_page(page.render(), html)
    end_with(findings)

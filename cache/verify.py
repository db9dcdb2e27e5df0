"""Checking every byte of a cache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from ..errors import CacheError, RecordError, UntrustedError
from . import layout
from .key import KernelId
from .outcome import FAULTS, Finding, MissReason, finding_of
from .record import Record
from .store import Root


@dataclass(frozen=True)
class Verification:
    """What was checked and what is wrong. `bytes` is that of the blobs."""

    records: int
    bytes: int
    findings: Sequence[Finding]

    def render(self) -> dict[str, object]:
        """Return the fields as JSON."""
        return {
            "records": self.records,
            "bytes": self.bytes,
            "findings": [{"path": finding.path, "problem": finding.problem} for finding in self.findings],
        }


def verify_root(root: Root) -> Verification:
    """Read everything that a cache names, and compare it with what it states.

    Files that nothing names (a killed builder's) are no finding. Never raises for what is on disk.
    """
    findings: list[Finding] = []
    try:
        root.require_layout()
    except FAULTS as error:
        findings.append(finding_of(error, root.path, layout.FORMAT))
    blobs: dict[str, int] = {}
    known: set[tuple[str, KernelId]] = set()
    toolchains: set[str] = set()
    for toolchain in root.toolchains():
        if isinstance(toolchain, Finding):
            findings.append(toolchain)
        else:
            toolchains.add(toolchain.id)
    for record in root.records():
        if isinstance(record, Finding):
            findings.append(record)
            continue
        path = layout.record_path(record.toolchain, record.id)
        if record.toolchain not in toolchains:
            findings.append(_bad(path, f"its toolchain {record.toolchain} is not in the cache"))
        try:
            blobs[record.blob] = len(root.blob(record))
        except FAULTS as error:
            findings.append(_of_blob(error, root, record))
            continue
        known.add((record.toolchain, record.id))
    for manifest in root.manifests():
        if isinstance(manifest, Finding):
            findings.append(manifest)
            continue
        path = layout.manifest_path(manifest.toolchain, manifest.spec_digest, manifest.target)
        missing = [kernel for kernel in manifest.kernels if (manifest.toolchain, kernel) not in known]
        if missing:
            findings.append(_bad(path, f"{len(missing)} of its {len(manifest.kernels)} kernels are missing or damaged"))
    return Verification(len(known), sum(blobs.values()), list(dict.fromkeys(findings)))


def blob_findings(root: Root, records: Iterable[Record]) -> Iterator[Finding]:
    """Yield what is wrong with the blobs of records, as far as can be said without reading them."""
    for record in records:
        try:
            root.require_blob(record)
        except FAULTS as error:
            yield _of_blob(error, root, record)


def _of_blob(error: RecordError | UntrustedError | CacheError | OSError, root: Root, record: Record) -> Finding:
    """Return what an error at a record's blob means."""
    blob = finding_of(error, root.path, layout.blob_path(record.blob))
    path = layout.record_path(record.toolchain, record.id)
    return replace(blob, path=path, problem=f"its blob `{blob.path}` {blob.problem}")


def _bad(path: str, problem: str) -> Finding:
    return Finding(path, MissReason.DAMAGED, problem)

"""Checking every byte of a cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from . import layout
from .key import KernelId
from .outcome import FAULTS, Finding, MissReason, finding_of
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
            blob = finding_of(error, root.path, layout.blob_path(record.blob))
            what = f"can't be read: {blob.problem}" if blob.reason is MissReason.UNREADABLE else blob.problem
            findings.append(replace(blob, path=path, problem=f"its blob `{blob.path}` {what}"))
            continue
        known.add((record.toolchain, record.id))
    for manifest in root.manifests():
        if isinstance(manifest, Finding):
            findings.append(manifest)
            continue
        missing = [kernel for kernel in manifest.kernels if (manifest.toolchain, kernel) not in known]
        if missing:
            path = root.manifest_path(manifest).relative_to(root.path).as_posix()
            findings.append(_bad(path, f"{len(missing)} of its {len(manifest.kernels)} kernels are missing or damaged"))
    return Verification(len(known), sum(blobs.values()), list(dict.fromkeys(findings)))


def _bad(path: str, problem: str) -> Finding:
    return Finding(path, MissReason.DAMAGED, problem)

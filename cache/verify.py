"""Checking every byte of a cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import RecordError, UntrustedError
from .key import KernelId
from .store import Finding, Root


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
        path = f"records/{record.toolchain}/{record.id[:2]}/{record.id}.json"
        if record.toolchain not in toolchains:
            findings.append(Finding(path, f"its toolchain {record.toolchain} is not in the cache"))
        try:
            blobs[record.blob] = len(root.blob(record))
        except RecordError as error:
            findings.append(Finding(path, f"its blob `{error.path}` {error.reason}"))
            continue
        except UntrustedError as error:
            findings.append(Finding(path, f"its blob is not trusted: {error.reason}", error.path))
            continue
        except OSError as error:
            findings.append(Finding(path, f"its blob can't be read: {error.strerror}"))
            continue
        known.add((record.toolchain, record.id))
    for manifest in root.manifests():
        if isinstance(manifest, Finding):
            findings.append(manifest)
            continue
        missing = [kernel for kernel in manifest.kernels if (manifest.toolchain, kernel) not in known]
        if missing:
            path = root.manifest_path(manifest).relative_to(root.path).as_posix()
            findings.append(
                Finding(path, f"{len(missing)} of its {len(manifest.kernels)} kernels are missing or damaged")
            )
    return Verification(len(known), sum(blobs.values()), list(dict.fromkeys(findings)))

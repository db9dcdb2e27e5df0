"""Checking every byte of a cache."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from ..errors import RecordError
from . import layout
from .claims import Claim, wrong_blobs
from .outcome import FAULTS, Finding, MissReason, finding_of
from .store import Root


@dataclass(frozen=True)
class Verification:
    """What was checked and what is wrong.

    `bytes` is that of the kernels' blobs; `libraries` and `library_bytes` are the run-time libraries.
    """

    records: int
    bytes: int
    libraries: int
    library_bytes: int
    findings: Sequence[Finding]

    def render(self) -> dict[str, object]:
        """Return the fields as JSON."""
        return {
            "records": self.records,
            "bytes": self.bytes,
            "libraries": self.libraries,
            "library_bytes": self.library_bytes,
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
        findings.append(finding_of(error, root.path, error.path if isinstance(error, RecordError) else layout.FORMAT))
    blobs: dict[str, int] = {}
    known: set[str] = set()
    toolchains: set[str] = set()
    for toolchain in root.toolchains():
        if isinstance(toolchain, Finding):
            findings.append(toolchain)
        else:
            toolchains.add(toolchain.id)
    items = [item if isinstance(item, Finding) else Claim.of(item) for item in root.records()]
    wrong = _wrong(root, [item for item in items if isinstance(item, Claim)], whole=True)
    for item in items:
        if isinstance(item, Finding):
            findings.append(item)
            continue
        if item.toolchain not in toolchains:
            findings.append(_bad(item.path, f"its toolchain {item.toolchain} is not in the cache"))
        if item in wrong:
            findings.append(wrong[item])
            continue
        blobs[item.blob] = item.blob_bytes
        known.add(item.path)
    for manifest in root.manifests():
        if isinstance(manifest, Finding):
            findings.append(manifest)
            continue
        path = layout.manifest_path(manifest.toolchain, manifest.spec_digest, manifest.target)
        named = [layout.record_path(manifest.toolchain, kernel) for kernel in manifest.kernels]
        if missing := [record for record in named if record not in known]:
            findings.append(_bad(path, f"{len(missing)} of its {len(manifest.kernels)} kernels are missing or damaged"))
    findings += [beside for beside in (*root.origins(), *root.certificates()) if isinstance(beside, Finding)]
    libraries = _libraries(root, findings)
    findings += _not_as_sealed(root, {*blobs, *libraries})
    return Verification(
        len(known), sum(blobs.values()), len(libraries), sum(libraries.values()), list(dict.fromkeys(findings))
    )


def _not_as_sealed(root: Root, known: Collection[str]) -> Iterator[Finding]:
    """Yield what is wrong with blobs that the seal lists, but for those that are `known` to be right."""
    try:
        contents = root.sealed
    except FAULTS as error:
        yield finding_of(error, root.path, error.path if isinstance(error, RecordError) else layout.SEAL)
        return
    left = [entry for entry in contents.of_kind("blobs") if entry.digest not in known] if contents else []
    present = root.present(left)
    yield from (
        _bad(entry.path, "is missing or damaged, and the seal lists it") for entry in left if entry not in present
    )


def _libraries(root: Root, findings: list[Finding]) -> dict[str, int]:
    """Return the sizes of the run-time libraries that are right, by digest, and add what is wrong with the others."""
    claims: list[Claim] = []
    for library in root.libraries():
        if isinstance(library, Finding):
            findings.append(library)
        else:
            claims.append(Claim.of(library))
    wrong = _wrong(root, claims, whole=True)
    findings += [wrong[claim] for claim in claims if claim in wrong]
    return {claim.blob: claim.blob_bytes for claim in claims if claim not in wrong}


def blob_findings(root: Root, claims: Sequence[Claim]) -> list[Finding]:
    """Return what is wrong with the blobs of records, in their order, as far as can be said without reading them."""
    wrong = _wrong(root, claims, whole=False)
    return [wrong[claim] for claim in claims if claim in wrong]


def _wrong(root: Root, claims: Sequence[Claim], whole: bool) -> dict[Claim, Finding]:
    """Return what is wrong with the blobs of records or libraries, as findings of these."""
    return {
        claim: replace(blob, path=claim.path, problem=f"its blob `{blob.path}` {blob.problem}")
        for claim, blob in wrong_blobs(root, claims, whole).items()
    }


def _bad(path: str, problem: str) -> Finding:
    return Finding(path, MissReason.DAMAGED, problem)

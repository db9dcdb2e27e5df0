"""What a build did, also one with nothing to do. Imports nothing that builds, which takes longer than to look."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..cache.kinds import MANIFEST
from ..cache.manifest import Excluded
from ..cache.publish import Publisher
from ..cache.record import Record
from ..cache.store import Root
from ..cache.target import Target
from ..cache.toolchain import Toolchain
from .inventory import finished_build
from .known_bad import Doubt
from .shard import Shard
from .spec.spec import Spec


@dataclass(frozen=True)
class Failure:
    """A kernel that did not compile, why, and the provider's traceback or the worker's last words.

    It has no id: that is known only after compiling. `kernel` says which it is, in words.
    """

    kernel: str
    variant: Mapping[str, object]
    error: str
    report: str

    def render(self) -> dict[str, object]:
        """Return the fields as JSON."""
        return {
            "kernel": self.kernel,
            "variant": dict(self.variant),
            "error": self.error,
            "report": self.report,
        }


@dataclass(frozen=True)
class BuildReport:
    """What a build did. Every number is counted, none is taken from the plan.

    `taken` are kernels that others had built, and that were not compiled; `linked` those that were compiled for another
    target of the build, with other hosts, and linked for this one; `left` those that other shards build;
    `machines` says how many were built by each host of an engine; `known_bad` which of all are known to be bad.
    """

    spec: str
    target: Target
    toolchain: str
    variants: int
    kernels: int
    built: int
    cached: int
    excluded: Sequence[Excluded]
    failed: Sequence[Failure]
    seconds: float
    bytes: int
    manifest: Path
    peak_job_bytes: int
    taken: int = 0
    linked: int = 0
    machines: Mapping[str, int] = field(default_factory=dict)
    left: int = 0
    known_bad: Sequence[Doubt] = ()

    def render(self) -> dict[str, object]:
        """Return the fields as JSON."""
        return {
            "spec": self.spec,
            "target": self.target.render(),
            "toolchain": self.toolchain,
            "variants": self.variants,
            "kernels": self.kernels,
            "built": self.built,
            "taken": self.taken,
            "linked": self.linked,
            "cached": self.cached,
            "left": self.left,
            "excluded": [excluded.render() for excluded in self.excluded],
            "failed": [failure.render() for failure in self.failed],
            "seconds": round(self.seconds, 3),
            "bytes": self.bytes,
            "manifest": str(self.manifest),
            "peak_job_bytes": self.peak_job_bytes,
            "machines": dict(self.machines),
            "known_bad": [doubt.render() for doubt in self.known_bad],
        }


def finished_report(
    root: Root, spec: Spec, target: Target, toolchain: Toolchain, start: float, shard: Shard | None = None
) -> BuildReport | None:
    """Return the report of a build that has nothing to do, and began at `start`; None if there is something to do.

    With a `shard` it has nothing to do if all that is not there is left to others of as many.

    The build is confirmed: for `gc` it is as young as one that was made now. Raises as `finished_build`.
    """
    present = finished_build(root, spec, target, toolchain, shard)
    if present is None or not Publisher(root).confirm(MANIFEST.place(present.manifest)):
        return None
    return BuildReport(
        spec=spec.name,
        target=present.manifest.target,
        toolchain=present.manifest.toolchain,
        variants=present.manifest.variants,
        kernels=len(present.records) + len(present.manifest.left),
        built=0,
        cached=len(present.records),
        excluded=present.manifest.excluded,
        failed=(),
        seconds=time.monotonic() - start,
        bytes=blob_bytes(present.records),
        manifest=root.manifest_path(present.manifest),
        peak_job_bytes=0,
        left=len(present.manifest.left),
    )


def blob_bytes(records: Sequence[Record]) -> int:
    """Return the size of the blobs of records, each counted once."""
    return sum(blob.blob_bytes for blob in {record.blob: record for record in records}.values())

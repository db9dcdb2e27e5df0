"""What earlier builds tell of how long kernels take to compile: records and origins, and the shipped table."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..cache.key import KeyText
from ..cache.outcome import Finding
from ..cache.record import Record
from ..cache.store import Root
from ..cache.toolchain import Toolchain
from ..providers.registry import DEFAULT
from .model import Model, Traits, traits
from .plan import PlannedKernel

SHIPPED_TABLE = Path(__file__).resolve().parents[1] / "kernel_specs" / "compile_times.json"

Which = tuple[str, str, KeyText]
"""Arch, slot and key of a kernel: the same ones of another toolchain take about as long."""


@dataclass(frozen=True)
class Seen:
    """A kernel that was built.

    Attributes:
        which: what it is.
        traits: what a model knows of it.
        seconds: CPU time of the process that made it; None if nothing says it.
        bytes: size of its blob.
        peak_bytes: memory of that process; None if nothing says it.
    """

    which: Which
    traits: Traits
    seconds: float | None
    bytes: int
    peak_bytes: int | None


@dataclass(frozen=True)
class Table:
    """What is shipped: a model of kernels that were measured on one machine, and what a build spends beside them.

    Attributes:
        machine, toolchain: where it was measured, and what was built with; for people.
        kernels: how many were measured.
        seconds, bytes: models of CPU time and of a blob's size.
        peak_job_bytes: the most that one of the processes needed.
        cpu_per_compile_second: CPU time of a process for a second of its compiler, where only that was noted.
        start_seconds: CPU time from the start of a build until the first call can be asked about.
        first_seconds: CPU time that is spent once after planning: a try whether the compiler knows the target, and what
            the first kernels have to import.
        kernel_seconds: CPU time that a build spends on each kernel outside its process: fork server, trial, publishing.
        driver_seconds: of these, those that one process spends, one kernel after another, however many cores there are.
    """

    machine: str
    toolchain: str
    kernels: int
    seconds: Model
    bytes: Model
    peak_job_bytes: int
    cpu_per_compile_second: float
    start_seconds: float
    first_seconds: float
    kernel_seconds: float
    driver_seconds: float

    def expected_seconds(self, planned: PlannedKernel) -> float:
        """Return the CPU time that a kernel of a plan is expected to take on that machine."""
        reached = planned.reached
        return self.seconds.expect(traits(reached.slot, reached.key_fields, reached.selection))

    def render(self) -> dict[str, object]:
        """Return the table as JSON."""
        return {**self.__dict__, "seconds": self.seconds.render(), "bytes": self.bytes.render()}

    @classmethod
    def read(cls, path: Path = SHIPPED_TABLE) -> Table:
        """Read what `render` wrote."""
        content = json.loads(path.read_bytes())
        models = {name: Model.parse(content[name]) for name in ("seconds", "bytes")}
        return cls(**{**content, **models})


def seen_in(roots: Iterable[Root], table: Table, provider: str = DEFAULT.name) -> list[Seen]:
    """Return the kernels of caches, of any toolchain of a provider; those that can't be read are nobody's example."""
    found = []
    for root in roots:
        others = {one.id for one in root.toolchains() if isinstance(one, Toolchain) and one.provider != provider}
        for record in root.records():
            if isinstance(record, Record) and record.toolchain not in others:
                found.append(_seen(root, record, table))
    return found


def _seen(root: Root, record: Record, table: Table) -> Seen:
    origin = root.origin(record.toolchain, record.id)
    seconds = peak = None
    if origin is not None and not isinstance(origin, Finding):
        seconds, peak = origin.cpu_seconds, origin.peak_bytes
        if seconds is None and peak is None and origin.compile_seconds is not None:  # of before processes were measured
            seconds = origin.compile_seconds * table.cpu_per_compile_second
    return Seen(
        which=(record.arch, record.slot, record.key),
        traits=traits(record.slot, record.key_fields, record.selection),
        seconds=seconds or None,  # none took no time
        bytes=record.blob_bytes,
        peak_bytes=peak,
    )


def median_by_kernel(seen: Sequence[Seen]) -> Mapping[Which, float]:
    """Return the CPU seconds of each kernel of which they are known; of one that was built often, their median."""
    seconds: dict[Which, list[float]] = {}
    for one in seen:
        if one.seconds is not None:
            seconds.setdefault(one.which, []).append(one.seconds)
    return {which: statistics.median(values) for which, values in seconds.items()}

"""What a build of a plan is going to take: CPU time, wall time by cores, memory, bytes. Compiles nothing."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..cache.store import Root
from ..cache.target import Target
from ..cache.toolchain import Toolchain
from ..providers.call import Environment
from ..providers.protocol import Provider
from .compile.pool import MEMORY_PER_JOB
from .inventory import find_planned
from .model import Model, traits
from .order import in_order, makespan
from .plan import Plan, PlannedKernel
from .seen import Seen, Table, Which, median_by_kernel

# The rows of the table: so many cores, and twice as many, until more are no use; but these in any case.
_ALWAYS_ROWS = 64
_MOST_ROWS = 1 << 14
_NO_GAIN = 0.02


@dataclass(frozen=True)
class Job:
    """A kernel that is to be compiled, and what is expected of it.

    Attributes:
        label: the kernel, for people.
        environment: the switches that its process needs; kernels of others wait for it.
        seconds: CPU time of its process.
        bytes: size of its blob.
        is_known: whether the very kernel was built before, so that nothing is modelled.
    """

    label: str
    environment: Environment
    seconds: float
    bytes: int
    is_known: bool


@dataclass(frozen=True)
class Basis:
    """What estimates are made from.

    Attributes:
        table: what is shipped.
        seconds, bytes: the table's models, corrected by the kernels that were seen.
        known: CPU seconds and bytes of kernels that were built before.
        records: how many kernels were seen of which the time is known.
        speed: the time that a kernel takes here, of what the table says; 1 if nothing was seen.
        peak_job_bytes: the most memory that the process of a kernel needed, here or in the table.
    """

    table: Table
    seconds: Model
    bytes: Model
    known: Mapping[Which, float]
    sizes: Mapping[Which, int]
    records: int
    speed: float
    peak_job_bytes: int

    @classmethod
    def of(cls, table: Table, seen: Sequence[Seen]) -> Basis:
        """Return what estimates are made from where these kernels were built before; there may be none."""
        timed = [(one.traits, one.seconds) for one in seen if one.seconds is not None]
        seconds = table.seconds.fitted(timed)
        ratios = [value / table.seconds.expect(found) for found, value in timed]
        return cls(
            table=table,
            seconds=seconds,
            bytes=table.bytes.fitted([(one.traits, float(one.bytes)) for one in seen if one.bytes]),
            known=median_by_kernel(seen),
            sizes={one.which: one.bytes for one in seen},
            records=len(timed),
            speed=statistics.median(ratios) if ratios else 1.0,
            peak_job_bytes=max([table.peak_job_bytes, *(one.peak_bytes or 0 for one in seen)]),
        )


@dataclass(frozen=True)
class Row:
    """What a build takes with so many cores, and as many jobs: seconds, and memory in bytes.

    `assumed_bytes` is what `build` reckons with when it chooses its jobs, `seen_bytes` what jobs have needed.
    """

    cores: int
    seconds: float
    assumed_bytes: int
    seen_bytes: int


@dataclass(frozen=True)
class Estimate:
    """What a build of a spec for one target is going to take.

    Attributes:
        spec, target: which build.
        kernels: of the plan; `present` of them are in the cache.
        jobs: those that are to be compiled, in the order of a build of few jobs: that one of many begins with quick
            ones is not reckoned with.
        basis: what it is made from.
        planning_seconds: CPU time of planning, which was measured; with the start of the fork servers.
    """

    spec: str
    target: Target
    kernels: int
    present: int
    jobs: Sequence[Job]
    basis: Basis = field(repr=False)
    planning_seconds: float

    @property
    def known(self) -> int:
        """How many of the jobs were built before."""
        return sum(job.is_known for job in self.jobs)

    @property
    def cpu_seconds(self) -> float:
        """CPU time of the whole build."""
        first = self.basis.table.first_seconds * self.basis.speed if self.jobs else 0.0
        return self.planning_seconds + first + sum(map(self._seconds, self.jobs))

    @property
    def bytes(self) -> int:
        """Size of the blobs that come into the cache."""
        return sum(job.bytes for job in self.jobs)

    @property
    def longest(self) -> Job | None:
        """The job that takes longest: no number of cores makes a build quicker than it."""
        return max(self.jobs, key=lambda job: job.seconds, default=None)

    def wall_seconds(self, cores: int) -> float:
        """Return how long a build takes that has so many cores, and as many jobs."""
        table, speed = self.basis.table, self.basis.speed
        start = table.start_seconds * speed
        planning = start + max(0.0, self.planning_seconds - start) / cores
        driver = table.driver_seconds * speed * len(self.jobs)
        compiling = max(driver, sum(makespan(batch, cores) for batch in self._batches()))
        return planning + table.first_seconds * speed + compiling

    def _batches(self) -> list[list[float]]:
        environments = dict.fromkeys(job.environment for job in self.jobs)
        return [[self._seconds(job) for job in self.jobs if job.environment == one] for one in sorted(environments)]

    def _seconds(self, job: Job) -> float:
        return job.seconds + self.basis.table.kernel_seconds * self.basis.speed

    def rows(self) -> list[Row]:
        """Return a row for 1 core, 2, 4, ... until twice as many are no use."""
        rows: list[Row] = []
        cores = 1
        while cores <= _MOST_ROWS:
            seconds = self.wall_seconds(cores)
            if cores > _ALWAYS_ROWS and seconds > rows[-1].seconds * (1 - _NO_GAIN):
                break
            rows.append(Row(cores, seconds, cores * MEMORY_PER_JOB, cores * self.basis.peak_job_bytes))
            cores *= 2
        return rows

    def render(self) -> dict[str, object]:
        """Return the estimate as JSON."""
        longest = self.longest
        return {
            "kernels": self.kernels,
            "present": self.present,
            "to_compile": len(self.jobs),
            "known": self.known,
            "modelled": len(self.jobs) - self.known,
            "records": self.basis.records,
            "table": {"machine": self.basis.table.machine, "kernels": self.basis.table.kernels},
            "speed": round(self.basis.speed, 3),
            "cpu_seconds": round(self.cpu_seconds, 1),
            "planning_cpu_seconds": round(self.planning_seconds, 1),
            "longest": None if longest is None else {"kernel": longest.label, "seconds": round(longest.seconds, 1)},
            "bytes": self.bytes,
            "peak_job_bytes": self.basis.peak_job_bytes,
            "cores": [
                {
                    "cores": row.cores,
                    "seconds": round(row.seconds, 1),
                    "assumed_bytes": row.assumed_bytes,
                    "seen_bytes": row.seen_bytes,
                }
                for row in self.rows()
            ],
        }


def estimate(
    plan: Plan, provider: Provider, toolchain: Toolchain, root: Root, basis: Basis, planning_seconds: float
) -> Estimate:
    """Return what a build of a plan takes that goes into a cache; what is there already takes nothing."""
    missing = [one for one in plan.kernels if find_planned(root, toolchain, plan.target, one) is None]
    return Estimate(
        spec=plan.spec.name,
        target=plan.target,
        kernels=len(plan.kernels),
        present=len(plan.kernels) - len(missing),
        jobs=[_job(one, plan.target, basis) for one in in_order(missing, _cost(provider))],
        basis=basis,
        planning_seconds=planning_seconds,
    )


def _cost(provider: Provider) -> Callable[[PlannedKernel], Any]:
    return lambda planned: provider.expected_cost(planned.call.variant, planned.reached.slot)


def _job(planned: PlannedKernel, target: Target, basis: Basis) -> Job:
    reached = planned.reached
    which = (target.arch, reached.slot, reached.key)
    known = basis.known.get(which)
    found = traits(reached.slot, reached.key_fields, reached.selection)
    return Job(
        label=planned.label,
        environment=planned.call.environment,
        seconds=basis.seconds.expect(found) if known is None else known,
        bytes=basis.sizes.get(which) or math.ceil(basis.bytes.expect(found)),
        is_known=known is not None,
    )

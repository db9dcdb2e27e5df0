"""Stock: what the provider compiles by itself, in processes that have none of our stand-ins, against what a build has.

What it compiles is taken from its own disk cache, where it has one; where its files are, another process is asked.
What it keeps in memory only is exported once its calls are made.
"""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ...cache.key import KeyText
from ...products.cubin import read_cubin
from ...providers.call import Call, Environment, Identity
from ...providers.disk import DiskEntry, NoEntry
from ...text.words import count
from ..compile.compilers import Compilers, fork_server_environment
from ..compile.pool import ForkServerPool, TaskFailed
from ..compile.untouched import Untouched
from ..compile.worker import call_untouched, load_untouched
from ..export_stock import entries, with_cache
from ..plan import PlannedKernel
from ..progress import Progress
from .artifact import Artifact, Outcome, identity
from .findings import Finding, Part, made
from .sample import Sample

NAME = "stock"

# Calls that one process makes: as a job, it pays its start once.
_MOST_CALLS = 8


@dataclass
class _Stock:
    """What the provider has compiled by itself: cubins in memory, and why calls have failed."""

    kept: dict[tuple[str, KeyText], bytes] = field(default_factory=dict)
    failed: dict[Call, str] = field(default_factory=dict)
    made: int = 0

    def take(self, calls: Sequence[Call], came: Untouched) -> None:
        """Take note of what came of some calls."""
        self.kept.update(came.kept)
        self.failed.update({calls[place]: reason for place, reason in came.failed.items()})
        self.made += len(calls)


def audit_stock(
    sample: Sample, ours: Sequence[Outcome], compilers: Compilers, progress: Progress, time_limit: float
) -> Part:
    """Compare kernels with what the provider compiles by itself; `ours` are those of the sample, in its order."""
    with tempfile.TemporaryDirectory(prefix="fa4-stock-") as name:
        folder = Path(name)
        places = _places(sample.calls, compilers, folder)
        progress.note(f"letting {compilers.provider.name} compile by itself for {count(len(sample.calls), 'call')}")
        stock = _made(sample.calls, compilers, folder, progress, time_limit)
        findings: list[Finding] = []
        equal = 0
        for planned, own in zip(sample.kernels, ours, strict=True):
            theirs = _artifacts(identity(planned), stock, folder, places.get(identity(planned), set()))
            found = _compared(planned, own, theirs, stock.failed.get(planned.call, "no call has compiled it"))
            findings += found
            equal += not found
    counts = {"kernels": len(sample.kernels), "equal": equal, "calls made by stock": len(sample.calls)}
    return Part(NAME, counts, findings)


def _compared(planned: PlannedKernel, own: Outcome, theirs: Sequence[Artifact], reason: str) -> list[Finding]:
    fields = planned.reached.slot, planned.reached.key_fields
    here = own if isinstance(own, Artifact) else None
    if here is None or not theirs:
        why = [f"ours: {own}"] if here is None else []
        why += [] if theirs else [f"stock: {reason}"]
        sides = [made("ours", planned.call, here), *(made(NAME, planned.call, one) for one in theirs[:1])]
        return [Finding("a kernel could not be compared with stock's", *fields, sides, why)]
    return [
        Finding(
            "a kernel is not the one that stock compiles",
            *fields,
            [made(NAME, planned.call, one), made("ours", planned.call, here)],
            one.differs(here),
        )
        for one in theirs
        if one.differs(here)
    ]


def _places(calls: Sequence[Call], compilers: Compilers, folder: Path) -> Mapping[Identity, set[DiskEntry | NoEntry]]:
    disk = compilers.provider.disk_cache
    if disk is None:
        return {}
    with Compilers(compilers.provider, compilers.target, compilers.toolchain, compilers.jobs) as asking:
        return entries(asking, disk, folder, _by_environment(calls))


def _by_environment(calls: Sequence[Call]) -> dict[Environment, list[Call]]:
    ordered = sorted(calls, key=lambda call: call.environment)
    return {env: list(group) for env, group in itertools.groupby(ordered, lambda call: call.environment)}


def _made(calls: Sequence[Call], compilers: Compilers, folder: Path, progress: Progress, time_limit: float) -> _Stock:
    stock = _Stock()
    for environment, group in _by_environment(calls).items():
        with _pool(environment, compilers, folder, time_limit) as pool:
            pieces = _pieces(group, compilers.jobs)
            futures = {pool.submit(call_untouched, compilers.pinned, piece): piece for piece in pieces}
            for future in as_completed(futures):
                stock.take(futures[future], _answer(future, futures[future]))
                progress.note(f"[{stock.made}/{len(calls)} calls] compiled by {compilers.provider.name} itself")
    return stock


@contextmanager
def _pool(environment: Environment, compilers: Compilers, folder: Path, time_limit: float) -> Iterator[ForkServerPool]:
    provider, disk = compilers.provider, compilers.provider.disk_cache
    variables = environment if disk is None else with_cache(environment, disk, folder)
    pool = ForkServerPool(
        compilers.jobs,
        load_untouched,
        (compilers.pinned,),
        fork_server_environment(provider, compilers.target, variables),
        {call_untouched: time_limit * _MOST_CALLS},
    )
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)  # all of them have ended, unless this is left by an error


def _pieces(calls: Sequence[Call], jobs: int) -> list[Sequence[Call]]:
    size = max(1, min(_MOST_CALLS, math.ceil(len(calls) / jobs)))
    return [calls[start : start + size] for start in range(0, len(calls), size)]


def _answer(future: Future[Untouched], calls: Sequence[Call]) -> Untouched:
    try:
        return future.result()
    except TaskFailed as error:
        return Untouched({}, dict.fromkeys(range(len(calls)), error.reason))


def _artifacts(kernel: Identity, stock: _Stock, folder: Path, places: set[DiskEntry | NoEntry]) -> list[Artifact]:
    """Return the distinct cubins that stock has of a kernel: calls whose keys are equal can have files of their own."""
    files = [folder / place.file for place in places if isinstance(place, DiskEntry)]
    objects = [path.read_bytes() for path in files if path.is_file()]
    slot, key, _ = kernel
    if (slot, key) in stock.kept:
        objects.append(stock.kept[slot, key])
    cubins = {cubin.image: cubin for cubin in map(read_cubin, objects)}
    return [Artifact(cubin) for cubin in cubins.values()]

"""A build of 10,000 kernels on 1 to 1,024 cores, simulated with what kernels took and what the driver really does.

    python benchmarks/scaling.py CACHE [--kernels 10000] [--seed 1]

Times are those of the kernels in CACHE, drawn with a fixed seed, in the order of a build. A core compiles one kernel
at a time; the products come to one driver, on a core of its own, which does one after another: unpickle, read the
cubin and check it, digest, try to load, publish with fsync. What these take is measured here, on the blobs of CACHE.

Printed is the makespan against its bound: the start of a worker, and then the work by the cores, the longest kernel, or
what the driver does, whichever is most. Then the same with the longest first all the way, and where workers publish.
Ends with 1 if a build, or one whose workers publish, is not within 1.1 of its bound at every number of cores.
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import os
import pickle
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fa4_precompile.cache import layout
from fa4_precompile.cache.contents import Entry
from fa4_precompile.cache.origin import Origin
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.record import Record
from fa4_precompile.cache.store import Root
from fa4_precompile.precompile.compile.compilers import Compilers
from fa4_precompile.precompile.compile.worker import Pinned
from fa4_precompile.precompile.model import Traits, traits
from fa4_precompile.precompile.order import ends, in_order, with_flow
from fa4_precompile.precompile.publication import PublishThere, check_product, record_of
from fa4_precompile.precompile.seen import Table
from fa4_precompile.products.product import Product
from fa4_precompile.products.trial import Trial
from fa4_precompile.providers.call import Call, Reached, Variant
from fa4_precompile.providers.installed import installed_toolchain
from fa4_precompile.providers.registry import DEFAULT

_CORES = sorted({*(1 << power for power in range(11)), *(3 << power for power in range(9))})
_MOST_RATIO = 1.1
_ROUNDS = 3
_PARTS = ("unpickle", "check", "record", "load", "publish")


@dataclass(frozen=True)
class _Kernel:
    """A kernel of the cache: all that comes back from a worker, and how many seconds it took there."""

    record: Record
    origin: Origin
    blob: bytes
    seconds: float

    @property
    def traits(self) -> Traits:
        """What the model of the shipped table knows of it."""
        return traits(self.record.slot, self.record.key_fields, self.record.selection)

    @property
    def product(self) -> Product:
        """What the worker that compiled it has sent."""
        return Product(
            kernel=self.record.id,
            blob=self.blob,
            facts=self.record.facts,
            selection=self.record.selection,
            cubin=self.record.cubin,
            cubin_bytes=self.record.cubin_bytes,
            functions=self.record.functions,
            compile_seconds=self.seconds,
            cpu_seconds=self.seconds,
            peak_bytes=0,
            keywords=self.record.keywords,
        )

    @property
    def variant(self) -> Variant:
        """The call that reaches it, as far as its cost depends on it."""
        axes = self.origin.variant
        call = {"pass": axes["pass"], "dtype": axes["dtype"], "head_dim": _pair(axes["head_dim"])}
        return DEFAULT.variant(call)

    @property
    def cost(self) -> tuple[int, ...]:
        """What a build orders it by."""
        return DEFAULT.expected_cost(self.variant, self.record.slot)

    @property
    def arguments(self) -> tuple[Pinned, str, Call, Reached]:
        """What a worker was asked for, as `compile_kernel` is."""
        record = self.record
        reached = Reached(record.slot, record.key, record.key_fields, record.selection)
        return Pinned(DEFAULT, self.origin.target), record.toolchain, Call(self.variant), reached


def _pair(dims: object) -> tuple[object, ...]:
    return tuple(dims) if isinstance(dims, list) else (dims, dims)


def _kernels(root: Root) -> list[_Kernel]:
    found = []
    for record in root.records():
        if not isinstance(record, Record):
            continue
        origin = root.origin(record.toolchain, record.id)
        if isinstance(origin, Origin) and (seconds := origin.cpu_seconds or origin.compile_seconds):
            found.append(_Kernel(record, origin, root.blob(record), seconds))
    return found


# What the driver does


@dataclass
class _Clock:
    """Seconds of each part, the least of several rounds for each kernel: others may load this machine."""

    least: dict[tuple[str, str], float]

    @contextmanager
    def part(self, name: str, kernel: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self.least[name, kernel] = min(seconds, self.least.get((name, kernel), seconds))

    def mean(self, name: str) -> float:
        values = [seconds for (part, _), seconds in self.least.items() if part == name]
        return sum(values) / len(values)


def _measure(kernels: Sequence[_Kernel]) -> _Clock:
    clock = _Clock({})
    for _ in range(_ROUNDS):
        with _new_root() as root, Trial() as trial:
            publisher = Publisher(root)
            publisher.create()
            trial.require_loads(kernels[0].blob, kernels[0].record.symbol)  # starts its process
            for one in kernels:
                _take(one, publisher, trial, clock)
        with _new_root() as root:
            _publish_at_once(kernels, root, clock)
        with _new_root() as root:
            Publisher(root).create()
            for one in kernels:
                _let_publish(one, root, trial, clock)
    return clock


@contextmanager
def _new_root() -> Iterator[Root]:
    folder = Path(tempfile.mkdtemp(prefix="scaling-", dir="."))  # on the disk, not in memory as /tmp may be
    try:
        yield Root(folder.absolute())
    finally:
        shutil.rmtree(folder)


def _take(one: _Kernel, publisher: Publisher, trial: Trial, clock: _Clock) -> None:
    """Do with a product what the driver does, which an engine has brought it to."""
    name, sent = one.record.id, pickle.dumps(one.product)
    target, toolchain, reached = one.origin.target, one.record.toolchain, one.arguments[-1]
    with clock.part("unpickle", name):
        product = pickle.loads(sent)
    with clock.part("check", name):
        check_product(product, one.arguments)
    with clock.part("record", name):
        record = record_of(product, toolchain, target, reached)
    with clock.part("load", name):
        trial.require_loads(product.blob, record.symbol)
    with clock.part("publish", name):
        publisher.publish(record, product.blob, one.origin)
    assert record == one.record


def _let_publish(one: _Kernel, root: Root, trial: Trial, clock: _Clock) -> None:
    """Publish as a worker does that has the cache, and do what is left for the driver then."""
    there = PublishThere(root.path, root.trust, one.origin.spec)
    with clock.part("by a worker", one.record.id):
        published = there(one.product, one.arguments, trial.require_loads)
    with clock.part("confirm", one.record.id):
        there.check(published, one.arguments)
    assert published.record == one.record


def _publish_at_once(kernels: Sequence[_Kernel], root: Root, clock: _Clock) -> None:
    """Publish by the threads that carrying has, which sync several files at a time."""
    publisher = Publisher(root)
    publisher.create()
    files: list[tuple[Entry, bytes]] = []
    for one in kernels:
        data = one.record.render_file()
        files.append((_entry(layout.blob_path(one.record.blob), one.blob), one.blob))
        files.append((_entry(layout.record_path(one.record.toolchain, one.record.id), data), data))
    start = time.perf_counter()
    publisher.publish_files(files)
    seconds = (time.perf_counter() - start) / len(kernels)
    clock.least["at once", ""] = min(seconds, clock.least.get(("at once", ""), seconds))


def _entry(path: str, data: bytes) -> Entry:
    return Entry(path, hashlib.sha256(data).hexdigest(), len(data))


def _start_seconds(target_of: _Kernel) -> float:
    """Return the time from the start of a worker's process to its first task, with the imports."""
    seconds = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        with Compilers(DEFAULT, target_of.origin.target, installed_toolchain(DEFAULT), 1) as compilers:
            compilers.pool().submit(os.getpid).result()
            seconds.append(time.perf_counter() - start)
    return min(seconds)


# The simulation


@dataclass(frozen=True)
class _Outcome:
    seconds: float
    bound: float
    limit: str
    backlog: int

    @property
    def ratio(self) -> float:
        return self.seconds / self.bound


def _simulate(work: Sequence[float], cores: int, start: float, driver: float, drivers: int = 1) -> _Outcome:
    """Compile on so many cores, and hand each product to the first driver that is free, in the order of their ends."""
    came = sorted(start + end for end in ends(work, cores))
    gone = list(_served(came, driver, drivers))
    bounds = {
        "cores": sum(work) / cores,
        "longest kernel": max(work),
        "driver": len(work) * driver / drivers,
    }
    limit = max(bounds, key=lambda name: bounds[name])
    return _Outcome(max(gone), start + bounds[limit], limit, _most_waiting(came, gone))


def _served(came: Iterable[float], seconds: float, drivers: int) -> Iterator[float]:
    free = [0.0] * drivers
    for one in came:
        end = max(free[0], one) + seconds
        heapq.heapreplace(free, end)
        yield end


def _most_waiting(came: Sequence[float], gone: Sequence[float]) -> int:
    most = served = 0
    for number, one in enumerate(came, 1):
        while gone[served] <= one:
            served += 1
        most = max(most, number - served)
    return most


def _resampled(kernels: Sequence[_Kernel], number: int, seed: int) -> list[_Kernel]:
    """Draw so many kernels, and return them with the longest first."""
    drawn = random.Random(seed).choices(kernels, k=number)
    costs = {one.record.id: one.cost for one in kernels}
    return in_order(drawn, lambda one: costs[one.record.id])


def _as_built(work: list[_Kernel], table: Table, jobs: int) -> list[float]:
    """Return what kernels take, in the order of a build of so many jobs, which knows what the shipped table expects."""
    expected = {one.record.id: table.seconds.expect(one.traits) for one in work}
    ordered = with_flow(work, lambda one: expected[one.record.id], table.driver_seconds, jobs)
    return [one.seconds for one in ordered]


def _table(title: str, outcome_of: Callable[[int], _Outcome]) -> bool:
    """Print a row for each number of cores, and return whether each is near its bound."""
    print(f"\n{title}\n{'cores':>6} {'makespan':>10} {'bound':>10} {'ratio':>6}  {'limit':15} {'products waiting':>16}")
    worst = 0.0
    for cores in _CORES:
        one = outcome_of(cores)
        worst = max(worst, one.ratio)
        times = f"{one.seconds:>8.1f} s {one.bound:>8.1f} s {one.ratio:>6.3f}"
        print(f"{cores:>6} {times}  {one.limit:15} {one.backlog:>16,}")
    print(f"at most {worst:.3f} of the bound")
    return worst <= _MOST_RATIO


def _tables(work: list[_Kernel], start: float, clock: _Clock) -> bool:
    """Print what it takes, by both ways to publish, and return whether both are near their bounds."""
    driver = sum(clock.mean(part) for part in _PARTS)
    longest_first = [one.seconds for one in work]
    each = sum(longest_first) / len(work)
    parts = ", ".join(f"{part} {clock.mean(part) * 1e3:.2f} ms" for part in _PARTS)
    print(f"the driver, for each kernel: {driver * 1e3:.2f} ms: {parts}")
    print(f"it limits from {each / driver:,.0f} cores on")
    table = Table.read()
    near = [
        _table(
            "one driver, in the order of a build",
            lambda cores: _simulate(_as_built(work, table, cores), cores, start, driver),
        )
    ]
    title = "the same, always with the longest first"
    _table(title, lambda cores: _simulate(longest_first, cores, start, driver))
    at_once, confirm = clock.mean("at once"), clock.mean("confirm")
    together = driver - clock.mean("publish") + at_once
    print(
        f"\npublishing by eight threads: {at_once * 1e3:.2f} ms for a kernel, all of the driver {together * 1e3:.2f} ms"
    )
    print(f"it limits from {each / together:,.0f} cores on")
    there = clock.mean("by a worker")
    title = (
        f"workers publish, which takes {there * 1e3:.0f} ms more of them, and the driver reads back what they did in "
    )
    title += f"{confirm * 1e3:.2f} ms: from {each / confirm:,.0f} cores on it limits"
    near.append(_table(title, lambda cores: _simulate([one.seconds + there for one in work], cores, start, confirm)))
    return all(near)


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path, metavar="CACHE")
    parser.add_argument("--kernels", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    kernels = _kernels(Root(arguments.cache.absolute()))
    if not kernels:
        sys.exit(f"`{arguments.cache}` has no kernel that tells what it took")
    clock = _measure(kernels)
    start = _start_seconds(kernels[0])
    work = _resampled(kernels, arguments.kernels, arguments.seed)
    seconds = [one.seconds for one in work]
    print(f"{len(kernels)} kernels measured, {arguments.kernels:,} drawn with seed {arguments.seed}: ", end="")
    print(
        f"{sum(seconds) / 3600:.2f} h of work, {sum(seconds) / len(work):.2f} s each, the longest {max(seconds):.1f} s"
    )
    print(f"start of a worker: {start:.2f} s")
    sys.exit(0 if _tables(work, start, clock) else 1)


if __name__ == "__main__":
    _main()

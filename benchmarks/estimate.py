"""What `plan --estimate` says of a spec against what a build of it takes; and how the shipped table is made.

    python benchmarks/estimate.py SPEC CACHE [--from CACHE ...] [--without-table] [--sample N] [-j N]
    python benchmarks/estimate.py --cross-validate CACHE CACHE ...
    python benchmarks/estimate.py --table MACHINE CACHE ... > kernel_specs/compile_times.json

The first builds SPEC into CACHE, which must be new, and compares: CPU seconds of all processes, wall time, bytes, the
longest kernel, memory. The estimate is made from the shipped table and the caches of `--from`, of which the kernels
that SPEC has itself are left out: what is measured is the model. The shipped table may have them: `--without-table`
leaves its kernels out, too. Wall time is compared as it had been if others had not used this machine meanwhile, by the
share of its cores that they took. `--sample` builds so many kernels of SPEC, by calls drawn with a fixed seed. Ends
with 1 if CPU seconds, that wall time or bytes are off by more than 25 %.

`--cross-validate` predicts each cache by the others. `--table` prints a table that is fitted to caches of one machine,
which it calls so. The first was built while nobody else used it: the times of the others are scaled by what the kernels
took that they share with the first.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml
from rows import Row

from fa4_precompile.cache.origin import Origin
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.toolchain import Toolchain
from fa4_precompile.precompile.compile.compilers import Compilers
from fa4_precompile.precompile.compile.pool import default_jobs
from fa4_precompile.precompile.estimate import Basis, Estimate, estimate
from fa4_precompile.precompile.model import Model, Traits
from fa4_precompile.precompile.plan import Plan, make_plan
from fa4_precompile.precompile.seen import Seen, Table, median_by_kernel, seen_in
from fa4_precompile.precompile.spec.spec import find_spec, parse_spec, read_spec, target_book
from fa4_precompile.providers.installed import installed_toolchain

_OFF = 0.25
_BUILD = [sys.executable, "-c", "import sys; from fa4_precompile.cli import main; main(sys.argv[1:])", "build"]
_LISTED = ("head_dim", "tile", "window")


@dataclass(frozen=True)
class _Built:
    """What a build took. `others` is the share of this machine's cores that other processes had meanwhile."""

    wall: float
    cpu: float
    others: float
    report: dict[str, object]


def _roots(paths: Sequence[Path]) -> list[Root]:
    return [Root(path.absolute()) for path in paths]


# An estimate against a build


def _compare(
    spec_name: str, cache: Path, based_on: Sequence[Path], with_table: bool, sample: int | None, jobs: int
) -> bool:
    table = Table.read()
    with tempfile.TemporaryDirectory() as folder:
        spec = find_spec(spec_name).absolute()
        if sample is not None:
            spec = _sampled(spec, sample, Path(folder), jobs)
        expected = _estimated(spec, seen_in(_roots(based_on), table), table, with_table, cache, jobs)
        print(f"{spec_name}: {len(expected.jobs)} kernels, by the table of {table.kernels} kernels", end="")
        print(f" and {expected.basis.records} others built before (speed {expected.basis.speed:.2f})", flush=True)
        built = _build(spec, cache, jobs)
    return _told(expected, built, cache, jobs)


def _planned(spec: Path, jobs: int) -> tuple[Plan, float]:
    """Return the plan of a spec for its first target, and the CPU seconds that it took."""
    before = _cpu()
    parsed = read_spec(spec, target_book())
    with Compilers(parsed.provider, parsed.targets[0], installed_toolchain(parsed.provider), jobs) as compilers:
        plan = make_plan(parsed, compilers)
    return plan, _cpu() - before


def _cpu() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _sampled(spec: Path, kernels: int, folder: Path, jobs: int) -> Path:
    """Write a spec of some calls of another, which come to so many kernels at most."""
    plan, _ = _planned(spec, jobs)
    calls = list(plan.calls)
    random.Random(1).shuffle(calls)
    entries: list[dict[str, object]] = []
    reached: set[int] = set()
    for call, indices in calls:
        if len(reached | set(indices)) > kernels:
            break
        reached.update(indices)
        axes = call.variant.render()
        listed = {name: [axes[name]] for name in _LISTED if isinstance(axes.get(name), list)}
        entries.append({"name": f"call-{len(entries)}", **axes, **listed})
    text = {"version": 1, "provider": "flash-attn-4", "targets": [plan.target.name], "kernels": entries}
    path = folder / f"{spec.stem}-sample.yaml"
    path.write_text(yaml.safe_dump(text, sort_keys=False), encoding="utf-8")
    parse_spec(str(path), path.read_text(encoding="utf-8"), target_book())
    return path


def _estimated(spec: Path, seen: Sequence[Seen], table: Table, with_table: bool, cache: Path, jobs: int) -> Estimate:
    """Estimate by other kernels than the spec's own; without the table, by one that is fitted to them only."""
    plan, cpu = _planned(spec, jobs)
    own = {(plan.target.arch, kernel.reached.slot, kernel.reached.key) for kernel in plan.kernels}
    others = [one for one in seen if one.which not in own]
    basis = Basis.of(table, others) if with_table else Basis.of(_fitted(table, others), [])
    provider = plan.spec.provider
    return estimate(plan, provider, installed_toolchain(provider), Root(cache.absolute()), basis, cpu)


def _build(spec: Path, cache: Path, jobs: int) -> _Built:
    target = read_spec(spec, target_book()).targets[0].name
    command = [*_BUILD, str(spec), "--target", target, "--cache", str(cache), "-j", str(jobs), "--json"]
    start, before = time.monotonic(), _busy()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        out = process.stdout.read() if process.stdout else ""
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1):
        sys.exit(f"`{' '.join(command)}` has ended with exit code {process.returncode}")
    wall, cpu = time.monotonic() - start, used.ru_utime + used.ru_stime
    others = max(0.0, _busy() - before - cpu) / (wall * (os.cpu_count() or 1))
    return _Built(wall, cpu, min(others, 0.99), json.loads(out))


def _busy() -> float:
    """Return the seconds that all cores of this machine have worked, or were taken by its host."""
    user, nice, system, _idle, _waiting, irq, soft, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


def _told(expected: Estimate, built: _Built, cache: Path, jobs: int) -> bool:
    """Print the estimate beside what was measured, and return whether it is near enough."""
    own = [one for one in seen_in([Root(cache.absolute())], expected.basis.table) if one.seconds]
    slowest = max((one.seconds or 0.0 for one in own), default=0.0)
    peak = int(str(built.report["peak_job_bytes"]))
    figures = [
        ("CPU seconds", expected.cpu_seconds, built.cpu, True),
        (f"seconds with {jobs} jobs, had others not used the machine", *_walls(expected, built, jobs), True),
        ("bytes", float(expected.bytes), float(sum(one.bytes for one in own)), True),
        ("longest kernel, CPU seconds", expected.longest.seconds if expected.longest else 0.0, slowest, False),
        ("memory of a job, bytes", float(expected.basis.peak_job_bytes), float(peak), False),
    ]
    print(f"built {built.report['built']}, {len(list(own))} known, {built.report['failed'] and 'some failed'}")
    print(f"wall {built.wall:,.1f} s; others had {built.others:.0%} of the machine's cores")
    near = True
    for name, guess, real, counts in figures:
        off = guess / real - 1 if real else 0.0
        near = near and (not counts or abs(off) <= _OFF)
        print(f"{name}: estimated {guess:,.1f}, measured {real:,.1f}: {off:+.0%}")
    return near


def _walls(expected: Estimate, built: _Built, jobs: int) -> tuple[float, float]:
    """Return the estimate, and the wall time of a build for which all the cores had been that it can use."""
    cores = os.cpu_count() or 1
    left = built.wall * cores * (1 - built.others)
    return expected.wall_seconds(jobs), min(built.wall, left / min(jobs, cores))


# The model


def _cross_validated(caches: Sequence[Path]) -> Iterator[Row]:
    """Yield how far off the sums and the single kernels of each cache are, by those of the others only."""
    empty = _empty()
    by_cache = {path: seen_in(_roots([path]), empty) for path in caches}
    for path, kernels in by_cache.items():
        own = {one.which for one in kernels}
        others = [one for each in by_cache.values() for one in each if one.which not in own]
        for name in ("seconds", "bytes"):
            model = Model().fitted(_values(others, name))
            known = [(model.expect(traits), value) for traits, value in _values(kernels, name)]
            ratio = sum(guess for guess, _ in known) / sum(real for _, real in known)
            single = statistics.median(abs(guess / real - 1) for guess, real in known)
            yield Row(f"{path.name}: {name} by {len(others)} others, of what {len(known)} took in all", ratio, "")
            yield Row(f"{path.name}: {name} of a kernel, off by (median)", 100 * single, "%")


def _scaled(cache: Path, measure: Path) -> list[Seen]:
    """Return the kernels of a cache with the times that they had taken when the other one was built."""
    own, theirs = (seen_in(_roots([path]), _empty()) for path in (cache, measure))
    times = median_by_kernel(theirs)
    ratios = [one.seconds / times[one.which] for one in own if one.seconds and one.which in times]
    slower = statistics.median(ratios) if ratios else 1.0
    return [replace(one, seconds=one.seconds / slower) for one in own if one.seconds]


def _values(kernels: Sequence[Seen], name: str) -> list[tuple[Traits, float]]:
    return [(one.traits, float(value)) for one in kernels if (value := getattr(one, name))]


def _fitted(table: Table, kernels: Sequence[Seen]) -> Table:
    """Return a table with models of these kernels only."""
    models = {name: Model().fitted(_values(kernels, name)) for name in ("seconds", "bytes")}
    return replace(table, kernels=len(kernels), seconds=models["seconds"], bytes=models["bytes"])


def _empty() -> Table:
    return Table("", "", 0, Model(), Model(), 0, 1.0, 0.0, 0.0, 0.0, 0.0)


def _table(caches: Sequence[Path], machine: str, start: float, first: float, kernel: float, driver: float) -> Table:
    seen = {one.which: one for path in reversed(caches) for one in _scaled(path, caches[0]) if one.peak_bytes}
    origins = [one for root in _roots(caches) for one in root.origins() if isinstance(one, Origin)]
    ratios = [one.cpu_seconds / one.compile_seconds for one in origins if one.cpu_seconds and one.compile_seconds]
    toolchains = [one for root in _roots(caches) for one in root.toolchains() if isinstance(one, Toolchain)]
    table = Table(
        machine=machine,
        toolchain=", ".join(sorted({f"{one.provider} {one.provider_version}" for one in toolchains})),
        kernels=0,
        seconds=Model(),
        bytes=Model(),
        peak_job_bytes=max(one.peak_bytes or 0 for one in seen.values()),
        cpu_per_compile_second=round(max(1.0, *ratios), 2),  # others who use the machine make it less, nothing more
        start_seconds=start,
        first_seconds=first,
        kernel_seconds=kernel,
        driver_seconds=driver,
    )
    return _fitted(table, list(seen.values()))


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", type=Path, nargs="+", metavar="SPEC CACHE, or CACHE ...")
    parser.add_argument("--from", dest="based_on", type=Path, action="append", default=[], metavar="CACHE")
    parser.add_argument("--without-table", action="store_true")
    parser.add_argument("--sample", type=int, metavar="N")
    parser.add_argument("-j", "--jobs", type=int, default=default_jobs())
    parser.add_argument("--cross-validate", action="store_true")
    parser.add_argument("--table", metavar="MACHINE", help="in words, for people")
    parser.add_argument("--start-seconds", type=float, default=3.0)
    parser.add_argument("--first-seconds", type=float, default=1.8)
    parser.add_argument("--kernel-seconds", type=float, default=0.07)
    parser.add_argument("--driver-seconds", type=float, default=0.03)
    given = parser.parse_args()
    if given.cross_validate:
        for row in _cross_validated(given.paths):
            print(row.line())
    elif given.table:
        spent = given.start_seconds, given.first_seconds, given.kernel_seconds, given.driver_seconds
        table = _table(given.paths, given.table, *spent)
        print(json.dumps(table.render(), indent=1))
    else:
        if len(given.paths) != 2:
            parser.error("name a SPEC and a new CACHE")
        spec, cache = given.paths
        is_near = _compare(str(spec), cache, given.based_on, not given.without_table, given.sample, given.jobs)
        sys.exit(0 if is_near else 1)


if __name__ == "__main__":
    _main()

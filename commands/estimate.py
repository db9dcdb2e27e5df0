"""What `plan --estimate` says: how long a build is going to take, and what it needs."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..cache.store import Root
from ..loader.config import Config
from ..precompile.estimate import Basis, Estimate
from ..precompile.seen import Table, seen_in
from ..text.words import count, megabytes
from .inputs import named_root


def basis(cache: Path | None, provider: str) -> Basis:
    """Return what estimates of a provider are made from: the named cache, the environment's, what is shipped."""
    config = Config.from_env()
    roots = dict.fromkeys([named_root(cache).path, *(path.absolute() for path in config.roots)])
    table = Table.read()
    return Basis.of(table, seen_in([Root(path, config.trust) for path in roots if path.is_dir()], table, provider))


def cpu_seconds() -> float:
    """Return the CPU time of this process, and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def estimate_lines(estimate: Estimate, root: Root) -> Iterator[str]:
    """Yield an estimate as text: how many kernels, what that is made from, sums, and a row for each number of cores."""
    found = f", {estimate.present:,} in `{root.path}`, {len(estimate.jobs):,} to compile" if estimate.present else ""
    yield f"{estimate.spec} for {estimate.target.name}: {count(estimate.kernels, 'kernel')}{found}"
    longest = estimate.longest
    if longest is None:
        return
    yield from _basis_lines(estimate)
    yield f"CPU time: {_time(estimate.cpu_seconds)}, of which planning {_time(estimate.planning_seconds)}"
    yield f"longest kernel: {_time(longest.seconds)}, {longest.label}"
    yield f"added to the cache: {megabytes(estimate.bytes)}"
    yield f"{'cores':>6}  {'time':>8}  {'memory':>8}  {'-j reckons':>10}"
    for row in estimate.rows():
        memory, assumed = _gigabytes(row.seen_bytes), _gigabytes(row.assumed_bytes)
        yield f"{row.cores:>6}  {_time(row.seconds):>8}  {memory:>8}  {assumed:>10}"


def _basis_lines(estimate: Estimate) -> Iterator[str]:
    basis, jobs = estimate.basis, len(estimate.jobs)
    table = f"by the shipped table ({count(basis.table.kernels, 'kernel')}, measured on {basis.table.machine})"
    if not basis.records:
        yield f"times: all {table}, as nothing was built here yet; other machines are faster or slower"
        return
    correction = f"{table} and {count(basis.records, 'kernel')} built before, which took {basis.speed:.2f} of its times"
    yield f"times: {estimate.known:,} measured here, {jobs - estimate.known:,} modelled {correction}"


def together_line(estimates: Sequence[Estimate]) -> str:
    """Return the sums over targets, which are built one after another."""
    cpu, size = sum(one.cpu_seconds for one in estimates), sum(one.bytes for one in estimates)
    kernels = count(sum(len(one.jobs) for one in estimates), "kernel")
    return (
        f"all {len(estimates)} targets, one after another: {kernels} to compile, {_time(cpu)} of CPU, {megabytes(size)}"
    )


def _time(seconds: float) -> str:
    """Return a time with two or three digits, in the unit that suits it."""
    if seconds < 99.5:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min" if seconds >= 597 else f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"

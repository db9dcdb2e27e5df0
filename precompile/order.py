"""The order in which kernels are compiled: of a build, and of who reckons how long one takes."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

_MANY_JOBS = 8


def in_order(planned: Sequence[T], cost: Callable[[T], Any]) -> list[T]:
    """Order kernels so that no long one is left for the end, where it would keep the other cores waiting.

    But the quickest comes first: what is wrong with this machine or the cache is known in seconds. `cost` returns what
    is compared; it need not be seconds.
    """
    ordered = sorted(planned, key=cost, reverse=True)
    return [*ordered[-1:], *ordered[:-1]]


def with_flow(ordered: list[T], seconds: Callable[[T], float], taking_in_s: float, jobs: int) -> list[T]:
    """Put what many jobs make quicker than it is taken in front of what is in order, and the quickest of it first.

    One process takes in what many cores make. Longest first, thousands of quick kernels come at the end, all at once,
    and it is busy with them long after the cores are done. By Johnson's rule for two machines one after the other,
    first comes what all jobs together make quicker than it is taken in, each in `taking_in_s` seconds. Of few jobs
    nothing is: all stays as it is.
    """
    if jobs < _MANY_JOBS:
        return ordered
    quick_s = taking_in_s * jobs
    quick = sorted((one for one in ordered if seconds(one) < quick_s), key=seconds)
    return [*quick, *(one for one in ordered if seconds(one) >= quick_s)]


def ends(seconds: Iterable[float], jobs: int) -> Iterator[float]:
    """Yield when each task ends, if they are begun in their order, each by the first of so many jobs that is free."""
    free = [0.0] * jobs
    for one in seconds:
        end = free[0] + one
        heapq.heapreplace(free, end)
        yield end


def makespan(seconds: Iterable[float], jobs: int) -> float:
    """Return when the last of these tasks ends."""
    return max(ends(seconds, jobs), default=0.0)

"""Choosing, of the calls that reach recorded kernels and no others, few that reach all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ...providers.call import Identity
from .asking import Point


def cover(
    wanted: frozenset[Identity], reaching: Mapping[Point, frozenset[Identity]], cost: Callable[[Point], tuple[int, ...]]
) -> list[Point]:
    """Return calls that together reach what is wanted, as far as any does: those that reach most first.

    Of calls that reach as many the one of least `cost` is taken, else the first.
    """
    order = sorted(reaching, key=cost)  # stable
    left, chosen = set(wanted), list[Point]()
    while left:
        best = max(order, key=lambda point: len(reaching[point] & left), default=None)  # the first of the best
        if best is None or not reaching[best] & left:
            break
        chosen.append(best)
        left -= reaching[best]
    return needed(chosen, reaching)


def needed(chosen: Sequence[Point], reaching: Mapping[Point, frozenset[Identity]]) -> list[Point]:
    """Return the calls without those that reach nothing which the others don't."""
    kept = list(chosen)
    for point in reversed(chosen):
        others = frozenset[Identity]().union(*(reaching[one] for one in kept if one != point))
        if reaching[point] <= others:
            kept.remove(point)
    return kept

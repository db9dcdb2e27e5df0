"""Of many reasons why there is no kernel, the one to say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..cache.outcome import Miss, MissReason


def telling(misses: Sequence[Miss]) -> list[Miss]:
    """Return what is wrong with the kernels of one root that are there; else that there is none, once.

    A kernel has one id of several that are looked for, so that others are not there says nothing, and what is wrong
    with a root is wrong for each.
    """
    said = [miss for miss in misses if miss.reason is not MissReason.ABSENT]
    return list(dict.fromkeys(said)) or list(misses[:1])


def first_of(misses: Sequence[Miss]) -> Miss:
    """Return the miss that says most, with the others behind it."""
    if not misses:
        return Miss(MissReason.ABSENT, "no root has a kernel that was built by what is installed here")
    ordered = sorted(misses, key=lambda miss: miss.reason is MissReason.ABSENT)
    return replace(ordered[0], others=tuple(ordered[1:]))

"""Calls whose sizes are open (`shapes: closure`), as few calls as reach all that any of their shapes does.

What is found is asked about as if a spec had listed it, so that a plan knows one kind of call only.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..providers.call import Call, Identity, Variant
from ..providers.protocol import Provider
from .asking import closed
from .compile.answers import Closed, Taken, objection
from .compile.compilers import Compilers


@dataclass(frozen=True)
class Closure:
    """What an open call comes to.

    Attributes:
        variants: few calls that together reach all of its kernels.
        by: for each kernel, the size that reaches it alone, from the ordinary sizes; empty if it is reached there, None
            if it takes several.
        accepted: those of the calls that the provider takes, with the answers.
    """

    variants: Sequence[Variant]
    by: Mapping[Identity, str | None]
    accepted: Sequence[tuple[Call, Taken]]


@dataclass(frozen=True)
class Growth:
    """How many kernels an entry has at ordinary sizes, and what its ranges add.

    Attributes:
        entry: its name.
        ordinary: kernels at ordinary sizes.
        by: kernels more, by the size that reaches them alone.
        together: kernels more that take several sizes.
    """

    entry: str
    ordinary: int
    by: Mapping[str, int]
    together: int

    @property
    def total(self) -> int:
        """Return the kernels that any shape in the ranges reaches."""
        return self.ordinary + sum(self.by.values()) + self.together

    def render(self) -> dict[str, object]:
        """Return the fields as JSON."""
        return {
            "entry": self.entry,
            "ordinary": self.ordinary,
            "by": dict(self.by),
            "together": self.together,
            "total": self.total,
        }


def open_variants(variants: Iterable[Variant], provider: Provider) -> list[Variant]:
    """Return those that leave sizes open."""
    return [variant for variant in variants if provider.ranges(variant)]


def close_variants(variants: Sequence[Variant], compilers: Compilers) -> dict[Variant, Closure]:
    """Ask about open variants at all sizes: each as it stands, then with switches while one may change the answer.

    What a call reaches with switches counts at all of its sizes: a job sets them for as long as it runs.
    """
    ways = {variant: compilers.provider.calls(variant) for variant in variants}
    found: dict[Variant, list[Closed]] = {variant: [] for variant in variants}
    for attempt in itertools.count():
        left = [one for one in variants if not found[one] or found[one][-1].is_open]
        calls = [ways[variant][attempt] for variant in left if attempt < len(ways[variant])]
        if not calls:
            break
        for call, one_way in closed(calls, compilers):
            found[call.variant].append(one_way)
    return {variant: _closure(all_ways) for variant, all_ways in found.items()}


def _closure(ways: Sequence[Closed]) -> Closure:
    answers = [one for way in ways for one in way.answers]
    sizes = {size: None for way in ways for size in way.by.values() if size}
    by: dict[Identity, str | None] = {}
    for size in ("", *sizes, None):
        for way in ways:
            for kernel, alone in way.by.items():
                if alone == size:
                    by.setdefault(kernel, size)
    return Closure(
        variants=list(dict.fromkeys(call.variant for call, _ in answers)),
        by=by,
        accepted=[
            (call, answer)
            for call, answer in answers
            if isinstance(answer, Taken) and objection(call.variant, answer) is None
        ],
    )


def growth(entry: str, closures: Sequence[Closure]) -> Growth:
    """Return what the open calls of an entry come to, each kernel counted once, where it takes least."""
    sizes = [size for closure in closures for size in closure.by.values() if size]
    order: list[str | None] = ["", *dict.fromkeys(sizes), None]
    least: dict[Identity, int] = {}
    for closure in closures:
        for kernel, size in closure.by.items():
            least[kernel] = min(least.get(kernel, len(order)), order.index(size))
    counts = Counter(order[place] for place in least.values())
    by = {size: counts[size] for size in order if size}
    return Growth(entry, counts[""], by, counts[None])

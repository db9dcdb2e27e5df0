"""Finding all that an asker answers anywhere in a box of sizes, by few questions.

An answer is a set of things, and depends on the sizes by thresholds that nobody has told us, some of one size, some of
several at once. Lines along each size find them: a grid of powers of two, and halving between neighbours that differ.
What lies between thresholds of several sizes is asked as a product, and chance asks the rest, half of it near
thresholds. All is repeated until a round finds nothing new.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from ...providers.call import Range

Point = tuple[int, ...]
Thing = tuple[Any, ...]
"""The identity of a kernel, which begins with its slot; or an empty slot, and a reason against the call."""
Things = frozenset[Thing]

# Points that are looked at by chance in each round: so many anywhere, and as many near thresholds. What one shape in
# twenty shows is found by the former in four searches of five.
_PROBES = 30
_SHARE_ANYWHERE = 0.4
# Most points of the product of what lies between thresholds, in each round, and most intervals of one size in it.
_MOST_PRODUCTS = 120
_MOST_INTERVALS = 6
# Rounds end when one finds nothing; so many only if each finds something.
_MOST_ROUNDS = 12


class Search:
    """A search in a box.

    Attributes:
        found: all things.
        by: for each, the name of the size that reaches it alone, from the base; empty for the base itself, None if it
            takes several sizes.
        asked: the answers, by point.

    Args:
        ask: what a point has; it must be the same each time.
        ranges: the box, by the names of its sizes; where all are ordinary is the base.
    """

    def __init__(self, ask: Callable[[Point], Things], ranges: Mapping[str, Range]) -> None:
        self._ask = ask
        self._names = list(ranges)
        self._ranges = list(ranges.values())
        self._base = tuple(one.ordinary for one in self._ranges)
        self._cuts: list[set[int]] = [set() for _ in ranges]
        self._new: list[Point] = []
        self._same, self._chance = random.Random(0), random.Random(1)
        self.asked: dict[Point, Things] = {}
        self.found: set[Thing] = set()
        self.by: dict[Thing, str | None] = {}

    def run(self) -> None:
        """Ask until a round finds nothing new."""
        self._take_base_lines()
        for corner in (tuple(one.low for one in self._ranges), tuple(one.high for one in self._ranges)):
            self._take_lines(corner)
        self._follow()
        for _ in range(_MOST_ROUNDS):
            before = len(self.found)
            for point in (*self._between_thresholds(), *self._by_chance()):
                self._look(point)
                self._follow()
            if len(self.found) == before:
                break
        self.by.update(dict.fromkeys(self.found - self.by.keys()))

    def fewest(self, ask: Callable[[Point], Things]) -> list[Point]:
        """Return few points that have all things: the base, then those that have most of what is left, small first.

        Args:
            ask: what a point has if it is asked about alone. The search may have been told otherwise, as what was asked
                before answered it; such a point has what it has alone. Things that no point has alone are left out.
        """
        alike: dict[Things, list[Point]] = {}
        for point in sorted(self.asked, key=math.prod):
            alike.setdefault(self.asked[point], []).append(point)
        left, points = set(self.found), list[Point]()
        while options := [one for one in alike if one & left]:
            best = max(options, key=lambda one: (len(one & left), -math.prod(alike[one][0])))
            point = self._base if not points and self.asked[self._base] & left else alike[best][0]
            things, alone = self.asked[point], ask(point)
            if alone == things:
                points.append(point)
                left -= things
                continue
            alike[things].remove(point)
            if not alike[things]:
                del alike[things]
            self.asked[point] = alone
            alike.setdefault(alone, []).insert(0, point)
            left |= alone - self.found
            self.found |= alone
        return points

    def _look(self, point: Point) -> Things:
        if point not in self.asked:
            self.asked[point] = self._ask(point)
            if not self.found.issuperset(self.asked[point]):
                self.found |= self.asked[point]
                self._new.append(point)
        return self.asked[point]

    def _follow(self) -> None:
        """Look along each size from where something new was seen."""
        while self._new:
            self._take_lines(self._new.pop())

    def _take_base_lines(self) -> None:
        self.by = dict.fromkeys(self._look(self._base), "")
        for position, name in enumerate(self._names):
            along = self._line(self._base, position, _fine)
            self.by.update(dict.fromkeys(along - self.by.keys(), name))

    def _take_lines(self, start: Point) -> None:
        for position in range(len(self._ranges)):
            self._line(start, position, _coarse)

    def _line(self, start: Point, position: int, grid: Callable[[Range], set[int]]) -> Things:
        """Look along one size, take note of thresholds, and return all that is there."""
        step = self._ranges[position].step
        seen: set[Thing] = set()

        def look(value: int) -> Things:
            things = self._look((*start[:position], value, *start[position + 1 :]))
            seen.update(things)
            return things

        def halve(low: int, high: int) -> None:
            if look(low) == look(high):
                return
            if high - low <= step:
                self._cuts[position].add(high)
                return
            middle = low + (high - low) // step // 2 * step
            halve(low, middle)
            halve(middle, high)

        values = sorted(grid(self._ranges[position]) | {start[position]})
        for low, high in itertools.pairwise(values):
            halve(low, high)
        look(values[0])
        return frozenset(seen)

    def _between_thresholds(self) -> Iterator[Point]:
        choices = []
        for span, cuts in zip(self._ranges, self._cuts, strict=True):
            starts = sorted({span.low, *cuts}) if cuts else [span.ordinary]
            choices.append(starts if len(starts) <= _MOST_INTERVALS else self._chance.sample(starts, _MOST_INTERVALS))
        points = list(itertools.product(*choices))
        yield from points if len(points) <= _MOST_PRODUCTS else self._chance.sample(points, _MOST_PRODUCTS)

    def _by_chance(self) -> Iterator[Point]:
        for _ in range(_PROBES):
            yield tuple(_anywhere(span, self._same) for span in self._ranges)
        for _ in range(_PROBES if any(self._cuts) else 0):
            yield tuple(map(self._near, self._ranges, self._cuts))

    def _near(self, span: Range, cuts: Collection[int]) -> int:
        if not cuts or self._chance.random() < _SHARE_ANYWHERE:
            return _anywhere(span, self._chance)
        return _snapped(span, self._chance.choice(sorted(cuts)) + self._chance.choice((-1, 0, 1)) * span.step)


def _anywhere(span: Range, chance: random.Random) -> int:
    return _snapped(span, math.exp(chance.uniform(math.log(span.low), math.log(span.high))))


def _powers(span: Range) -> set[int]:
    """Return both ends of a range, and the powers of two between them."""
    powers = (span.step << exponent for exponent in range((span.high // span.step).bit_length()))
    return {span.low, span.high, *(one for one in powers if span.low <= one)}


def _coarse(span: Range) -> set[int]:
    """Return both ends, and every other power of two."""
    return {span.low, span.high, *sorted(_powers(span))[::2]}


def _fine(span: Range) -> set[int]:
    """Return both ends, and the powers of two with what follows each."""
    return {_snapped(span, near) for one in _powers(span) for near in (one, one + span.step)}


def _snapped(span: Range, value: float) -> int:
    """Return the nearest value that a range has."""
    nearest = span.low + round((value - span.low) / span.step) * span.step
    return max(span.low, min(span.high, nearest))

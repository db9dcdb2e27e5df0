"""Folding calls into entries whose lists multiply: few entries, which reach no kernel that no job asked for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from .asking import Axes, Point

_MOST_POINTS = 512  # of one entry
_MOST_NEW = 96  # calls that nobody made, for two entries to become one
_MOST_ASKED = 6000  # in one round, which is some seconds
_MOST_APART = 3  # axes by which two entries differ that become one


@dataclass(frozen=True)
class Box:
    """An entry: the texts of its values on each axis, in the order of the provider's axes."""

    axes: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def size(self) -> int:
        """How many calls it is."""
        return math.prod(len(values) for _, values in self.axes)


class Folder:
    """Folds calls. `is_fine` says of calls whether each reaches nothing but what was recorded."""

    def __init__(self, axes: Axes, is_fine: Callable[[Sequence[Point]], Sequence[bool]]) -> None:
        self._axes = axes
        self._is_fine = is_fine
        self._fine: dict[Point, bool] = {}

    def fold(self, points: Sequence[Point]) -> list[Box]:
        """Return entries that have all of some calls."""
        names = sorted({name for point in points for name, _ in point}, key=self._axes.place)
        boxes = [self._box(point, names) for point in points]
        boxes = self._merged(boxes)
        while (wider := self._wider(boxes)) is not None:
            boxes = self._merged(wider)
        return boxes

    def points(self, box: Box) -> Iterator[Point]:
        """Yield the calls of an entry."""
        names = [name for name, _ in box.axes]
        for values in itertools.product(*(values for _, values in box.axes)):
            pairs = zip(names, values, strict=True)
            yield tuple((name, text) for name, text in pairs if text != self._axes.default(name))

    def _box(self, point: Point, names: Sequence[str]) -> Box:
        said = dict(point)
        return Box(tuple((name, (said[name] if name in said else self._axes.default(name),)) for name in names))

    def _merged(self, boxes: Sequence[Box]) -> list[Box]:
        """Return entries of which no two differ on one axis only: by the order of axes that comes to the fewest."""
        if not boxes:
            return []
        width = len(boxes[0].axes)
        orders = [*(tuple(range(start, width)) + tuple(range(start)) for start in range(width))]
        orders += [tuple(reversed(order)) for order in orders]
        return min((_joined(boxes, order) for order in orders), key=len)

    def _wider(self, boxes: Sequence[Box]) -> list[Box] | None:
        """Return the entries with pairs made one that has other calls, too, which are fine; None if no two can be."""
        unions: list[tuple[int, int, int, Box, list[Point]]] = []
        for (i, one), (j, other) in itertools.combinations(enumerate(boxes), 2):
            apart = sum(set(mine) != set(theirs) for (_, mine), (_, theirs) in zip(one.axes, other.axes, strict=True))
            union = _union(one, other)
            if apart > _MOST_APART or union.size > _MOST_POINTS or union.size - one.size - other.size > _MOST_NEW:
                continue
            there = {*self.points(one), *self.points(other)}
            new = [point for point in self.points(union) if point not in there]
            unions.append((len(new), i, j, union, new))
        unions.sort(key=lambda found: found[:3])
        self._learn(unions)
        gone: set[int] = set()
        made: list[Box] = []
        for _, i, j, union, new in unions:
            if not {i, j} & gone and all(self._fine.get(point, False) for point in new):
                gone |= {i, j}
                made.append(union)
        return [*(box for place, box in enumerate(boxes) if place not in gone), *made] if made else None

    def _learn(self, unions: Sequence[tuple[int, int, int, Box, list[Point]]]) -> None:
        """Ask about the new calls of entries, those first that need few, unless one is known not to be fine."""
        unknown: dict[Point, None] = {}
        for *_, new in unions:
            if all(self._fine.get(point, True) for point in new):
                unknown.update((point, None) for point in new if point not in self._fine)
            if len(unknown) > _MOST_ASKED:
                break
        self._fine.update(zip(unknown, self._is_fine(list(unknown)), strict=True))


def _joined(boxes: Iterable[Box], order: Sequence[int]) -> list[Box]:
    """Return entries joined along one axis after the other, until no two can be."""
    found = list(dict.fromkeys(boxes))
    before = -1
    while before != len(found):
        before = len(found)
        for place in order:
            groups: dict[tuple[object, ...], list[Box]] = {}
            for box in found:
                rest = tuple(frozenset(values) for at, (_, values) in enumerate(box.axes) if at != place)
                groups.setdefault(rest, []).append(box)
            found = [_union(*group) for group in groups.values()]
    return found


def _union(*boxes: Box) -> Box:
    columns = zip(*(box.axes for box in boxes), strict=True)
    return Box(
        tuple(
            (column[0][0], tuple(dict.fromkeys(value for _, values in column for value in values)))
            for column in columns
        )
    )

"""From recordings to a spec that reaches what was recorded, and an account of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ...cache.recording import Lookup
from ...errors import SpecError, UsageError
from ...providers.call import Identity, Variant
from ...providers.protocol import Provider
from ..compile.compilers import Compilers
from .asking import Asked, Axes, Point
from .covering import cover, needed
from .folding import Box, Folder
from .reading import Recorded, identity_of

Lookups = Sequence[tuple[Recorded, Lookup]]


@dataclass(frozen=True)
class MadeEntry:
    """An entry of a spec, the kernels that it reaches, and the processes that looked one of them up."""

    box: Box
    reached: frozenset[Identity]
    processes: Sequence[Recorded]


@dataclass(frozen=True)
class Unsaid:
    """Recorded kernels that no spec can reach, for one reason: how many, and whose the first was."""

    reason: str
    kernels: int
    first: Recorded


@dataclass
class Made:
    """What became of recorded lookups.

    Attributes:
        wanted: the kernels that the spec is to reach: those that were recorded; of another release than is installed
            those that the calls look up with this one.
        entries: the spec.
        more: kernels that the entries reach besides, because nothing less reaches one that is wanted.
        unreached: of those that are wanted, what no entry reaches, and why.
        gone: recorded kernels that their calls don't look up with what is installed.
        open_axes: axes that each entry has besides its own: ranges of sizes.
    """

    wanted: frozenset[Identity]
    entries: list[MadeEntry]
    more: frozenset[Identity]
    unreached: list[Unsaid] = field(default_factory=list)
    gone: frozenset[Identity] = frozenset()
    open_axes: Mapping[str, object] = field(default_factory=dict)


def make(lookups: Lookups, provider: Provider, compilers: Compilers, is_other: bool, closure: bool) -> Made:
    """Make entries of lookups. `is_other` says that they are of another release of the provider than is installed.

    Raises `UsageError` if none of their calls can be said.
    """
    axes = Axes(provider)
    asked = Asked(compilers, axes)
    said = _said(lookups, axes)
    variants = {point: axes.variant(point) for point in dict.fromkeys(said.values())}
    kin = {point: [axes.point(one.render()) for one in provider.kin(variant)] for point, variant in variants.items()}
    candidates = list(dict.fromkeys([*variants, *(one for of_one in kin.values() for one in of_one)]))
    asked.ask(candidates)
    recorded = {identity_of(one.slot, one.key, one.facts) for _, one in lookups if one.key}
    wanted = frozenset(recorded)
    if is_other:
        wanted = frozenset(_reached_now(variants, asked))
    taken = {point: reached for point in candidates if (reached := asked.reached(point))}
    reaching = {point: reached for point, reached in taken.items() if reached <= wanted}
    common = Counter(_text_of(point, "shape") for point in reaching)
    chosen = cover(wanted, reaching, lambda point: _cost(point, common))
    left = wanted - _union(reaching[point] for point in chosen)
    # What no call reaches alone: by calls that reach as few others as can be.
    beside = {point: reached & left for point, reached in taken.items() if reached & left and point in variants}
    extra = cover(frozenset(left), beside, lambda point: (len(taken[point] - wanted), *_cost(point, common)))
    allowed = wanted | _union(taken[point] for point in extra)
    entries = _entries([*chosen, *extra], asked, allowed, closure)
    made = Made(
        wanted=wanted,
        entries=[MadeEntry(box, reached, _processes(reached, lookups)) for box, reached in _ordered(entries, axes)],
        more=_union(reached for _, reached in entries) - wanted,
        gone=frozenset(recorded) - wanted if is_other else frozenset(),
    )
    made.unreached = _unreached(wanted - _union(reached for _, reached in entries), lookups, said, asked)
    if closure and variants:
        made.open_axes = provider.widened(list(variants.values()))
    return made


def _said(lookups: Lookups, axes: Axes) -> dict[int, Point]:
    """Return the calls of lookups that can be said, by the place of the lookup."""
    found: dict[int, Point] = {}
    for place, (_, lookup) in enumerate(lookups):
        if lookup.axes is None or lookup.unsaid:
            continue
        try:
            point = axes.point(lookup.axes)
            axes.variant(point)
        except (SpecError, UsageError):  # by a release with other axes; the kernel is told to be unreached
            continue
        found[place] = point
    return found


def _reached_now(variants: Mapping[Point, Variant], asked: Asked) -> set[Identity]:
    return set(_union(asked.reached(point) or frozenset() for point in variants))


def _union(sets: Iterable[frozenset[Identity]]) -> frozenset[Identity]:
    return frozenset[Identity]().union(*sets)


def _text_of(point: Point, axis: str) -> str:
    return dict(point).get(axis, "")


def _cost(point: Point, common: Counter[str]) -> tuple[int, ...]:
    """Return what makes a call hard to read: sizes, axes; sizes that others have, too, are easier."""
    shape = _text_of(point, "shape")
    return shape.count(":"), len(point), -common[shape], sum(len(text) for _, text in point)


def _entries(
    points: Sequence[Point], asked: Asked, allowed: frozenset[Identity], closure: bool
) -> list[tuple[Box, frozenset[Identity]]]:
    """Return entries that have some calls, and what they reach, without those that reach nothing of their own."""

    def is_fine(others: Sequence[Point]) -> list[bool]:
        if closure:  # sizes are open: what a call reaches at one says little
            return [False] * len(others)
        asked.ask(others)
        return [(reached := asked.reached(point)) is not None and reached <= allowed for point in others]

    folder = Folder(asked.axes, is_fine)
    if closure:
        reached_by = {point: asked.reached(point) or frozenset[Identity]() for point in points}
        without: dict[Point, frozenset[Identity]] = {}
        for point, reached in reached_by.items():
            sizeless = tuple(pair for pair in point if pair[0] != "shape")
            without[sizeless] = without.get(sizeless, frozenset()) | reached
        boxes = folder.fold(list(without))
        return [(box, _union(without.get(point, frozenset()) for point in folder.points(box))) for box in boxes]
    boxes = folder.fold(points)
    whole = {box: _union(asked.reached(point) or frozenset() for point in folder.points(box)) for box in boxes}
    kept: list[Box] = sorted(boxes, key=lambda box: -len(whole[box]))
    ids: dict[Point, frozenset[Identity]] = {(("box", str(place)),): whole[box] for place, box in enumerate(kept)}
    left = needed(list(ids), ids)
    return [(kept[int(point[0][1])], ids[point]) for point in left]


def _ordered(entries: Sequence[tuple[Box, frozenset[Identity]]], axes: Axes) -> list[tuple[Box, frozenset[Identity]]]:
    """Return entries as a person would: those with fewest axes of their own first, then those that reach most."""

    def special(box: Box) -> int:
        return sum(any(text != axes.default(name) for text in values) for name, values in box.axes)

    return sorted(entries, key=lambda entry: (special(entry[0]), -len(entry[1])))


def _processes(reached: frozenset[Identity], lookups: Lookups) -> list[Recorded]:
    found: dict[str, Recorded] = {}
    for recorded, one in lookups:
        if one.key and identity_of(one.slot, one.key, one.facts) in reached:
            found.setdefault(str(recorded.file), recorded)
    return list(found.values())


def _unreached(left: frozenset[Identity], lookups: Lookups, said: Mapping[int, Point], asked: Asked) -> list[Unsaid]:
    """Return why kernels are not reached, each reason with how many kernels it is about."""
    why: dict[tuple[object, ...], tuple[str, Recorded]] = {}
    for place, (recorded, one) in enumerate(lookups):
        identity = identity_of(one.slot, one.key, one.facts)
        if one.key and identity not in left:
            continue
        named: tuple[object, ...] = identity if one.key else (str(recorded.file), place)
        why.setdefault(named, (_why(one, said.get(place), asked), recorded))
    reasons: dict[str, list[Recorded]] = {}
    for reason, recorded in why.values():
        reasons.setdefault(reason, []).append(recorded)
    return [Unsaid(reason, len(found), found[0]) for reason, found in reasons.items()]


def _why(lookup: Lookup, point: Point | None, asked: Asked) -> str:
    slot = f"slot `{lookup.slot}`"
    if lookup.unsaid:
        return f"{slot}: no axis says {', '.join(f'`{one}`' for one in lookup.unsaid)} of the call"
    if lookup.axes is None:
        return f"{slot}: it was not seen which call asked"
    if point is None:
        return f"{slot}: the call was recorded with axes that this release does not have"
    if asked.reached(point) is None:
        return f"{slot}: what is installed does not take the call: {asked.refusals.get(point, '')}"
    return f"{slot}: the call that was seen reaches other kernels with what is installed"

"""From the layers of models to the entries of a spec: calls that the provider takes, and whose each is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ...errors import UsageError
from ...providers.layers import Axes as Call
from ...providers.layers import Purpose, Use
from ...providers.protocol import Provider
from ...text.words import count
from ..compile.compilers import Compilers
from ..recorded.asking import Asked, Axes, Point
from ..recorded.folding import Folder
from ..recorded.writing import Entry
from .attention import Layers, Model

_SHAPE = "shape"


@dataclass(frozen=True)
class Wanted:
    """A call that layers make, for a purpose."""

    layers: Layers
    purpose: Purpose
    call: Call

    def __str__(self) -> str:
        """Return whose call it is, in words."""
        return f"{self.layers.model}, {count(self.layers.number, 'layer')}, {self.purpose}"


@dataclass
class Made:
    """What models come to.

    Attributes:
        entries: those of the spec.
        notes: what a job has to know: layers that make no call, and calls that are made in another way.
        left_out: calls that the provider does not take, with its reasons.
    """

    entries: list[Entry]
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def make(models: Sequence[Model], uses: Sequence[Use], provider: Provider, targets: Sequence[Compilers]) -> Made:
    """Make entries of models and of the ways in which they are used; each call is one that all targets take.

    Raises `UsageError` for heads that can't be divided, and if no call is left.
    """
    axes = Axes(provider)
    made = Made([])
    wanted = list(_wanted(models, uses, provider, made))
    asked = [(compilers.target.name, Asked(compilers, axes)) for compilers in targets]
    points = {json.dumps(one.call): _point(one.call, axes) for one in wanted}
    _ask(asked, points.values())
    whose: dict[Point, list[Layers]] = {}
    for one in wanted:
        point = _taken(one, points[json.dumps(one.call)], provider, axes, asked, made)
        if point is not None:
            whose.setdefault(point, []).append(one.layers)
    if not whose:
        raise UsageError("no call of these models is taken", "; ".join(dict.fromkeys([*made.left_out, *made.notes])))
    _absorb(whose)
    folder = Folder(axes, lambda points: [False] * len(points))  # no call is added that no model makes
    for box in folder.fold(list(whose)):
        made.entries.append(Entry(box, _comment(one for point in folder.points(box) for one in whose[point])))
    made.notes, made.left_out = list(dict.fromkeys(made.notes)), list(dict.fromkeys(made.left_out))
    return made


def _wanted(models: Sequence[Model], uses: Sequence[Use], provider: Provider, made: Made) -> Iterable[Wanted]:
    for layers in (one for model in models for one in model.layers):
        for use in uses:
            try:
                calls = provider.calls_of(layers.attention, use)
            except UsageError as error:
                raise UsageError(f"{layers.model}: {error}", error.hint) from None
            if not calls:
                many = f"{layers.model}: {count(layers.number, 'layer')}"
                made.notes.append(f"{many} of head_dim {layers.attention.head_dim} make no call in {use.purpose}")
            yield from (Wanted(layers, use.purpose, call) for call in calls)


def _point(call: Call, axes: Axes) -> Point:
    """Return a call as a point, without what is at its default."""
    return tuple(pair for pair in axes.point(call) if pair[1] != axes.default(pair[0]))


def _ask(asked: Sequence[tuple[str, Asked]], points: Iterable[Point]) -> None:
    some = list(points)
    for _, one in asked:
        one.ask(some)


def _taken(
    wanted: Wanted,
    point: Point,
    provider: Provider,
    axes: Axes,
    asked: Sequence[tuple[str, Asked]],
    made: Made,
) -> Point | None:
    """Return the call as all targets take it: as it is, or in another way. What is not so is noted, or left out."""
    reason = _refusal(point, asked)
    if not reason:
        return point
    for other in (_point(call, axes) for call in provider.instead(wanted.call)):
        _ask(asked, [other])
        if not _refusal(other, asked):
            said = ", ".join(f"`{name}: {json.loads(text)}`" for name, text in other if (name, text) not in point)
            made.notes.append(f"{wanted}: not taken as it is, {reason}; it is here with {said}: see `plan`")
            return other
    made.left_out.append(f"{wanted}: not taken, {reason}")
    return None


def _refusal(point: Point, asked: Sequence[tuple[str, Asked]]) -> str:
    """Return why a target does not take a call; nothing if all take it."""
    return next((f"{name}: {one.refusals[point]}" for name, one in asked if one.reached(point) is None), "")


def _absorb(whose: dict[Point, list[Layers]]) -> None:
    """Take out calls whose open sizes are within those of another one, which has their layers then."""
    shapes = {point: json.loads(dict(point).get(_SHAPE, "{}")) for point in whose}
    rest = {point: tuple(pair for pair in point if pair[0] != _SHAPE) for point in whose}
    for point in list(whose):
        for other in whose:
            if point != other and rest[point] == rest[other] and _is_within(shapes[point], shapes[other]):
                whose[other] += whose.pop(point)
                break


def _is_within(shape: Mapping[str, object], other: Mapping[str, object]) -> bool:
    """Return whether each size is that of the other, or a range within its range. A number stays one by itself."""
    return shape.keys() == other.keys() and all(
        size == other[name]
        or (isinstance(size, str) and isinstance(other[name], str) and _lies(size, str(other[name])))
        for name, size in shape.items()
    )


def _lies(inner: str, outer: str) -> bool:
    (low, high), (lowest, highest) = ((int(one) for one in text.split("..")) for text in (inner, outer))
    return lowest <= low and high <= highest


def _comment(found: Iterable[Layers]) -> str:
    """Return whose calls an entry has."""
    layers: dict[str, int] = {}
    for one in dict.fromkeys(found):
        layers[one.model] = layers.get(one.model, 0) + one.number
    return "; ".join(f"{model}, {count(number, 'layer')}" for model, number in layers.items())

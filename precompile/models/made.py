"""From the layers of models to the entries of a spec: calls that the provider takes, and whose each is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ...errors import SpecError, UsageError
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

    Raises `UsageError` for heads that can't be divided, for calls that no spec can say, and if no call is left.
    """
    axes = Axes(provider)
    asked = _Targets([(compilers.target.name, Asked(compilers, axes)) for compilers in targets])
    made = Made([])
    whose: dict[Point, list[Layers]] = {}
    for model in models:
        wanted = list(_wanted(model, uses, provider, made))
        for layers, point in _taken(wanted, provider, axes, asked, made):
            whose.setdefault(point, []).append(layers)
    if not whose:
        raise UsageError("no call of these models is taken", "; ".join(dict.fromkeys([*made.left_out, *made.notes])))
    _absorb(whose)
    folder = Folder(axes, lambda points: [False] * len(points))  # no call is added that no model makes
    for box in folder.fold(list(whose)):
        made.entries.append(Entry(box, _comment(one for point in folder.points(box) for one in whose[point])))
    made.notes, made.left_out = list(dict.fromkeys(made.notes)), list(dict.fromkeys(made.left_out))
    return made


def _wanted(model: Model, uses: Sequence[Use], provider: Provider, made: Made) -> Iterator[Wanted]:
    for layers in model.layers:
        for use in uses:
            try:
                calls = provider.calls_of(layers.attention, use)
            except UsageError as error:
                raise UsageError(f"{layers.model}: {error}", error.hint) from None
            if not calls:
                many = f"{layers.model}: {count(layers.number, 'layer')}"
                made.notes.append(f"{many} of head_dim {layers.attention.head_dim} make no call in {use.purpose}")
            yield from (Wanted(layers, use.purpose, call) for call in calls)


def _taken(
    wanted: Sequence[Wanted], provider: Provider, axes: Axes, asked: _Targets, made: Made
) -> Iterator[tuple[Layers, Point]]:
    """Yield the calls of a model as all targets take them: as they are, or in another way.

    What a job sets for one call, which is refused otherwise, it sets for all; some reach other kernels then.
    """
    points = [_point(one, one.call, axes) for one in wanted]
    asked.ask(points)
    refusals = [asked.refusal(point) for point in points]
    others = [_other(one, provider, axes, asked) if any(refusals) else None for one in wanted]
    is_set = any(other and refusal for other, refusal in zip(others, refusals, strict=True))
    for one, point, refusal, other in zip(wanted, points, refusals, others, strict=True):
        if other and (refusal or (is_set and not asked.are_alike(point, other))):
            said = ", ".join(f"`{name}: {json.loads(text)}`" for name, text in other if (name, text) not in point)
            why = (
                f"not taken as it is, {refusal}" if refusal else "what the job sets for other layers is for these, too"
            )
            made.notes.append(f"{one}: {why}; it is here with {said}, and `plan` says what the job sets")
            yield one.layers, other
        elif refusal:
            made.left_out.append(f"{one}: not taken, {refusal}")
        else:
            yield one.layers, point


def _other(wanted: Wanted, provider: Provider, axes: Axes, asked: _Targets) -> Point | None:
    """Return a call in another way, if it is taken in one."""
    points = [_point(wanted, call, axes) for call in provider.instead(wanted.call)]
    asked.ask(points)
    return next((point for point in points if not asked.refusal(point)), None)


def _point(wanted: Wanted, call: Call, axes: Axes) -> Point:
    """Return a call as a point, without what is at its default. Raises `UsageError` for what no spec can say."""
    point = tuple(pair for pair in axes.point(call) if pair[1] != axes.default(pair[0]))
    try:
        axes.variant(point)
    except SpecError as error:
        raise UsageError(f"{wanted}: no spec can say its calls: {error.message}", error.hint) from None
    return point


class _Targets:
    """What the provider answers to calls, for each of some targets."""

    def __init__(self, asked: Sequence[tuple[str, Asked]]) -> None:
        self._asked = asked

    def ask(self, points: Sequence[Point]) -> None:
        """Ask about calls."""
        for _, one in self._asked:
            one.ask(points)

    def refusal(self, point: Point) -> str:
        """Return why a target does not take a call; nothing if all take it."""
        refused = (f"{name}: {one.refusals[point]}" for name, one in self._asked if one.reached(point) is None)
        return next(refused, "")

    def are_alike(self, point: Point, other: Point) -> bool:
        """Return whether two calls reach the same kernels."""
        return all(one.reached(point) == one.reached(other) for _, one in self._asked)


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

"""Which kernels calls look up, asked once each, and what calls of a provider are as points of its axes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from ...errors import SpecError, UsageError
from ...providers.axes import AUTO, Axis
from ...providers.call import Call, Identity, Variant
from ...providers.protocol import Provider
from ...text.yaml_source import Value, read_yaml
from ..asking import asked
from ..compile.answers import Taken
from ..compile.compilers import Compilers

Point = tuple[tuple[str, str], ...]
"""A call: the text of its value on each axis that it says something on, in the order of the provider's axes."""

_SOURCE = "a recorded call"


class Axes:
    """A provider's axes, to go from calls to points and back."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._axes = provider.axes
        self._parsed: dict[tuple[str, str], object] = {}
        self._defaults: dict[str, str] = {}
        self._order = {name: place for place, name in enumerate(self._axes)}

    def point(self, axes: Mapping[str, object]) -> Point:
        """Return a call as a point. Raises `SpecError` for an axis that there is none of."""
        for name in axes:
            if name not in self._axes:
                raise SpecError(_SOURCE, 0, 0, f"there is no axis `{name}`")
        return tuple((name, _text(axes[name])) for name in sorted(axes, key=self._order.__getitem__))

    def variant(self, point: Point) -> Variant:
        """Return the call of a point. Raises `SpecError` or `UsageError` for what can't be one."""
        return self._provider.variant({name: self._value(name, text) for name, text in point})

    def default(self, name: str) -> str:
        """Return the text of an axis's default."""
        if name not in self._defaults:
            value: object = self._axes[name].default
            if value is None and not _takes(self._axes[name], None):
                value = AUTO
            self._defaults[name] = _text(value if isinstance(value, (bool, int, float, str, type(None))) else {})
        return self._defaults[name]

    def place(self, name: str) -> int:
        """Return where an axis stands among the others."""
        return self._order[name]

    def _value(self, name: str, text: str) -> object:
        if (name, text) not in self._parsed:
            value = _read(json.loads(text))
            self._parsed[name, text] = self._axes[name].values(value)[0]
        return self._parsed[name, text]


def _read(value: object) -> Value:
    """Return a JSON value as a spec's axis has it: a list stands for several values, so one is a list in a list."""
    return read_yaml(_SOURCE, json.dumps({"value": [value] if isinstance(value, list) else value})).mapping(None, "it")[
        "value"
    ]


def _takes(axis: Axis, value: object) -> bool:
    try:
        axis.values(_read(value))
    except SpecError:
        return False
    return True


def _text(value: object) -> str:
    return json.dumps(value)


class Asked:
    """What a provider answers to calls: the kernels that they look up, or nothing where it does not take them."""

    def __init__(self, compilers: Compilers, axes: Axes) -> None:
        self._compilers = compilers
        self.axes = axes
        self._known: dict[Point, frozenset[Identity] | None] = {}
        self.refusals: dict[Point, str] = {}

    def ask(self, points: Iterable[Point]) -> None:
        """Ask about calls, of which most were not asked about yet."""
        calls: dict[Point, Call] = {}
        for point in points:
            if point in self._known or point in calls:
                continue
            try:
                variant = self.axes.variant(point)
            except (SpecError, UsageError) as error:
                self._known[point] = None
                self.refusals[point] = str(error)
                continue
            calls[point] = self._compilers.provider.calls(variant)[-1]
        of_call: dict[Call, list[Point]] = {}
        for point, call in calls.items():
            of_call.setdefault(call, []).append(point)
        for call, answer in asked(list(of_call), self._compilers):
            for point in of_call[call]:
                reached = {one.identity for one in answer.reached} if isinstance(answer, Taken) else None
                self._known[point] = None if reached is None else frozenset(reached)
                if reached is None:
                    self.refusals[point] = str(getattr(answer, "reason", None) or getattr(answer, "error", answer))

    def is_known(self, point: Point) -> bool:
        """Return whether a call was asked about."""
        return point in self._known

    def reached(self, point: Point) -> frozenset[Identity] | None:
        """Return the kernels of a call that was asked about; None if the provider does not take it."""
        return self._known[point]

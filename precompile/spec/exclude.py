"""The rules of a spec's `exclude`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...providers.axes import Axis, PerPass, identity
from ...text.yaml_source import Value


class Rules:
    """Each drops the variants that have one of its values on every axis that it names.

    A set of rules is a number with a bit for each, so that a spec of many rules is read as fast as one of few.
    """

    def __init__(self, places: Sequence[Value], axes: Mapping[str, Axis]) -> None:
        self._places = places
        self._all = (1 << len(places)) - 1
        self._used = 0
        self._silent: dict[str, int] = {}  # by axis: the rules that don't name it
        self._holding: dict[str, dict[str, int]] = {}  # by axis and value: the rules that have the value there
        for number, place in enumerate(places):
            values = {name: axes[name].values(value) for name, value in place.mapping(axes, "an exclude rule").items()}
            if not values:
                raise place.error("an exclude rule without an axis would drop everything")
            for name, choices in values.items():
                self._take(place, 1 << number, name, choices)

    def _take(self, place: Value, rule: int, name: str, choices: Sequence[object]) -> None:
        self._silent[name] = self._silent.get(name, self._all) & ~rule
        holding = self._holding.setdefault(name, {})
        for value in choices:
            if isinstance(value, PerPass):
                raise place.error(f"an exclude rule takes plain values of `{name}`", "name the `pass` beside it")
            holding[identity(value)] = holding.get(identity(value), 0) | rule

    def drop(self, point: Mapping[str, object]) -> bool:
        """Return whether a rule drops a point, and mark all that do as used."""
        rules = self._all
        for name, holding in self._holding.items():
            rules &= self._silent[name] | holding.get(identity(point[name]), 0)
        self._used |= rules
        return bool(rules)

    def require_used(self) -> None:
        """Raise `SpecError` for a rule that has dropped nothing."""
        for number, place in enumerate(self._places):
            if not self._used >> number & 1:
                raise place.error("this exclude rule matches no variant", "correct it, or take it out")

"""A spec's `callers`: names for the functions that make its calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ...providers.axes import Axis, reference
from ...providers.protocol import Provider
from ...text.yaml_source import Value, hint_for

_AXIS = "caller"


class Callers:
    """Functions by the names that a spec has for them: `callers: {NAME: module:function}`.

    Attributes:
        axes: those of the provider, whose `caller` takes these names and gives what they stand for.
    """

    def __init__(self, place: Value | None, provider: Provider) -> None:
        self.axes: Mapping[str, Axis] = provider.axes
        self._places: dict[str, Value] = {}
        self._references: dict[str, object] = {}
        self._used: set[str] = set()
        if place is not None:
            if _AXIS not in self.axes:
                raise place.error(f"{provider.title} has no axis `{_AXIS}`", "take `callers` out")
            self._places = place.mapping(None, "`callers`")
            self._references = {name: reference(name)(value) for name, value in self._places.items()}
        if _AXIS in self.axes:
            self.axes = {**self.axes, _AXIS: replace(self.axes[_AXIS], parse=self._parse)}
            self._parse_reference = provider.axes[_AXIS].parse

    def require_used(self) -> None:
        """Raise `SpecError` for a name that no entry has."""
        for name, place in self._places.items():
            if name not in self._used:
                raise place.error(f"no entry has `caller: {name}`", "correct it, or take it out")

    def _parse(self, value: Value) -> object:
        found = None if value.is_list or value.is_mapping else value.scalar()
        if not isinstance(found, str) or ":" in found:
            return self._parse_reference(value)
        if found not in self._references:
            names = list(self._references)
            hint = hint_for(found, names) if names else "name a function, `module:function`"
            raise value.error(f"`callers` has no `{found}`", hint)
        self._used.add(found)
        return self._references[found]

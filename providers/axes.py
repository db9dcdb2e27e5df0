"""Axes of a spec, and what they can be made of: a provider says what each of its axes takes.

Only what can't be meant at all is refused here (a size of -1). Whether a combination is supported is asked of the
provider when it is planned.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..errors import SpecError
from ..text.yaml_source import Value, hint_for

AUTO = "auto"
_MOST_PRODUCTS = 50_000
_REFERENCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@dataclass(frozen=True)
class PerPass:
    """A value that differs by pass, `backend: {bwd: generic}`; a pass that is not named takes the default."""

    by_pass: tuple[tuple[str, object], ...]

    def resolve(self, pass_: object, default: object) -> object:
        """Return the value of a pass."""
        return dict(self.by_pass).get(str(pass_), default)


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        name: as a spec says it.
        parse: reads one value, of the type that the provider's `variant` takes: data whose `repr` tells all of it.
        default: the value if a spec is silent; `...` if it must not be.
        per_pass: passes, if a mapping of them to values is taken too; they are the values of an axis called `pass`.
        is_spread: whether `parse` reads several values from one, as of a mapping whose fields take lists.
    """

    name: str
    parse: Callable[[Value], object]
    default: object
    per_pass: tuple[str, ...] = ()
    is_spread: bool = False

    def values(self, value: Value) -> list[object]:
        """Return the values that a spec gives, one or a list. Raises `SpecError`."""
        if not value.is_list:
            return self._each(value)
        found: dict[str, object] = {}
        for item in value.items(f"`{self.name}`"):
            try:
                parsed = self._each(item)
            except SpecError as error:
                if not self.takes_whole(value):
                    raise
                raise replace(error, hint=f"did you mean `[{value.text}]`? {error.hint}") from None
            for one in parsed:
                if identity(one) in found:
                    raise item.error(f"`{self.name}` has the value {item.kind} twice")
                found[identity(one)] = one
        return list(found.values())

    def takes_whole(self, value: Value) -> bool:
        """Return whether a list could have been meant as one value, `[192, 128]` as a pair."""
        if not value.is_list:
            return False
        try:
            self.parse(value)
        except SpecError:
            return False
        return True

    def _each(self, value: Value) -> list[object]:
        parsed = self._one(value)
        if not self.is_spread:
            return [parsed]
        assert isinstance(parsed, list)
        return parsed

    def _one(self, value: Value) -> object:
        if self.per_pass and value.is_mapping:
            inner = value.mapping(self.per_pass, f"`{self.name}`")
            if not inner:
                raise value.error(
                    f"`{self.name}` is an empty mapping", f"it takes values by pass: {', '.join(self.per_pass)}"
                )
            return PerPass(tuple((name, self.parse(item)) for name, item in inner.items()))
        return self.parse(value)


def identity(value: object) -> str:
    """Return what tells a value of an axis from others: its text, by which `1`, `1.0` and `True` are three."""
    return repr(value)


def product_of(place: Value, values: Mapping[str, Sequence[object]]) -> list[dict[str, object]]:
    """Return each way to take one value of each name. Raises `SpecError` at their place if there are too many."""
    number = math.prod(map(len, values.values()))
    if number > _MOST_PRODUCTS:
        raise place.error(f"these lists come to {number:,} combinations; the limit is {_MOST_PRODUCTS:,}")
    return [dict(zip(values, one, strict=True)) for one in itertools.product(*values.values())]


def one_or_list(name: str, parse: Callable[[Value], object], value: Value) -> list[object]:
    """Read one value or a list of several, which differ, as of a field whose list multiplies."""
    return Axis(name, parse, ...).values(value)


def choice(name: str, *allowed: str | bool | None) -> Callable[[Value], object]:
    """Take one of a few words, booleans or null."""

    def parse(value: Value) -> object:
        found = value.scalar()
        if any(found is word or (isinstance(found, str) and found == word) for word in allowed):
            return found
        words = [word if isinstance(word, str) else json.dumps(word) for word in allowed]
        raise value.error(f"`{name}` can't be {value.kind}", hint_for(str(found), words))

    return parse


def flag(name: str) -> Callable[[Value], object]:
    """Take true or false."""

    def parse(value: Value) -> object:
        found = value.scalar()
        if isinstance(found, bool):
            return found
        raise value.error(f"`{name}` can't be {value.kind}", "allowed: true, false")

    return parse


def count(name: str, low: int, high: int) -> Callable[[Value], int]:
    """Take an integer from `low` to `high`."""

    def parse(value: Value) -> int:
        found = value.scalar()
        if isinstance(found, int) and not isinstance(found, bool) and low <= found <= high:
            return found
        raise value.error(f"`{name}` can't be {value.kind}", f"allowed: an integer from {low} to {high}")

    return parse


def none_or(parse: Callable[[Value], object]) -> Callable[[Value], object]:
    """Take null too."""

    def parse_or_none(value: Value) -> object:
        return None if not value.is_list and not value.is_mapping and value.scalar() is None else parse(value)

    return parse_or_none


def auto_or(parse: Callable[[Value], object]) -> Callable[[Value], object]:
    """Take `auto` too, which is None."""

    def parse_or_auto(value: Value) -> object:
        return None if not value.is_list and not value.is_mapping and value.scalar() == AUTO else parse(value)

    return parse_or_auto


def pair(name: str, what: str, item: Callable[[Value], int]) -> Callable[[Value], tuple[int, int]]:
    """Take a list of two, read as `item` says; `what` is what it is called in a complaint."""

    def parse(value: Value) -> tuple[int, int]:
        if not value.is_list or len(items := value.items(f"`{name}`")) != 2:
            raise value.error(f"`{name}` can't be {value.kind}", f"allowed: auto, or {what} inside a list of values")
        return item(items[0]), item(items[1])

    return parse


def sides(name: str) -> Callable[[Value], object]:
    """Take false, true, or one of `q` and `k`."""

    def parse(value: Value) -> object:
        found = value.scalar()
        if isinstance(found, bool) or found in ("q", "k"):
            return found
        raise value.error(f"`{name}` can't be {value.kind}", "allowed: false, true, q, k")

    return parse


def reference(name: str) -> Callable[[Value], object]:
    """Take `module:attribute`."""

    def parse(value: Value) -> object:
        found = value.scalar()
        if isinstance(found, str) and found.startswith("__main__"):
            raise value.error(f"`{name}` can't be {value.kind}", "`__main__` is another module in each process")
        if isinstance(found, str) and _REFERENCE.fullmatch(found):
            return found
        raise value.error(
            f"`{name}` can't be {value.kind}", "allowed: null, `module:attribute` of an importable module"
        )

    return parse

"""Calls with open sizes: one that answers as another, which was searched, is asked only where that had something."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from fa4_precompile.cache.key import KeyText
from fa4_precompile.cache.record import Selection
from fa4_precompile.precompile.compile.answers import Answer, Closed, NotTaken, Taken
from fa4_precompile.precompile.compile.closing import Closer
from fa4_precompile.providers.call import Call, Range, Reached, Variant
from fa4_precompile.providers.protocol import Provider


@dataclass(frozen=True)
class _Variant:
    mask: str
    rows: int = 4096
    demands: None = None


class _Provider:
    def ranges(self, variant: Variant) -> Mapping[str, Range]:
        return {"rows": Range(1, 131072, 4096)}

    def sized(self, variant: Any, sizes: Mapping[str, int]) -> Any:
        return replace(variant, rows=sizes["rows"])


def _call(mask: str) -> Call:
    return Call(cast(Variant, _Variant(mask)))


def _taken(*keys: str) -> Taken:
    reached = [Reached("fwd", KeyText(key), {}, cast(Selection, None)) for key in keys]
    return Taken(reached, reached[-1])


def _few_and_many(mask: str, rows: int) -> Answer:
    return NotTaken("too few rows: 1") if rows < 3 else _taken(mask, f"{mask} {'few' if rows <= 200 else 'many'}")


def _close(answer: Callable[[str, int], Answer], *masks: str) -> list[Closed]:
    def ask(call: Call) -> Answer:
        variant = cast(_Variant, call.variant)
        return answer(variant.mask, variant.rows)

    closer = Closer(cast(Provider, _Provider()), ask, ask, lambda _: "all of one pattern")
    return [closer.close(_call(mask)) for mask in masks]


def test_call_of_a_known_pattern_comes_to_what_a_search_of_its_own_finds() -> None:
    first, second = _close(_few_and_many, "a", "b")
    (searched,) = _close(_few_and_many, "b")
    assert (second.answers, second.by) == (searched.answers, searched.by)
    assert second.by == {("fwd", "b", ()): "", ("fwd", "b many", ()): "", ("fwd", "b few", ()): "rows"}
    assert second.asked == len(second.answers) == 3 < first.asked == searched.asked


def test_call_that_breaks_its_pattern_is_searched() -> None:
    def one_is_taken_everywhere(mask: str, rows: int) -> Answer:
        return _taken(mask) if mask == "b" else _few_and_many(mask, rows)

    def one_has_one_key(mask: str, rows: int) -> Answer:
        return _taken(mask, f"{mask} all") if mask == "b" and rows >= 3 else _few_and_many(mask, rows)

    def one_is_turned_down_otherwise(mask: str, rows: int) -> Answer:
        return NotTaken("no such mask") if mask == "b" and rows < 3 else _few_and_many(mask, rows)

    for answer in (one_is_taken_everywhere, one_has_one_key, one_is_turned_down_otherwise):
        assert _close(answer, "a", "b")[1].by == _close(answer, "b")[0].by
        assert _close(answer, "a", "b")[1].asked == _close(answer, "b")[0].asked

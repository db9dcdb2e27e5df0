"""Asking a provider: what one call comes to does not depend on what was asked before. The provider is made up."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fa4_precompile.precompile.compile.answers import NotTaken, Taken
from fa4_precompile.precompile.compile.planner import _Planner
from fa4_precompile.providers.call import Call
from fa4_precompile.providers.protocol import LiveProvider, Provider
from fa4_precompile.providers.recognizer import Recognized

_KEY = ("one for all lengths",)


def _planner() -> tuple[_Planner, Callable[[int], Call]]:
    """A planner, and calls that look up one key, and are refused where it would be compiled if a page is not full."""

    def make(call: Any) -> None:
        if not planner.contains("fwd", _KEY):
            assert call.variant.length % 128 == 0, "whole pages only"
            planner.keep("fwd", _KEY, object())

    live = SimpleNamespace(
        call=make,
        refusal=lambda error: str(error) if isinstance(error, AssertionError) else None,
        recognizer=SimpleNamespace(recognize=lambda key, _: Recognized(key)),
        main_slot=lambda _: "fwd",
    )
    provider = SimpleNamespace(named_key=lambda *_: {"length": None}, selection=lambda *_: None, passing=None)
    planner = _Planner(cast(Provider, provider), cast(LiveProvider, live), 1)
    return planner, lambda length: cast(Call, SimpleNamespace(variant=SimpleNamespace(length=length)))


@pytest.mark.parametrize("order", [(4000, 4096), (4096, 4000)], ids=str)
def test_call_that_is_refused_where_it_would_be_compiled_says_nothing_of_others(order: tuple[int, int]) -> None:
    planner, call = _planner()
    answers = {length: planner.ask(call(length)) for length in order}
    refused, taken = answers[4000], answers[4096]
    assert isinstance(refused, NotTaken)
    assert (refused.reason.splitlines()[0], refused.reached) == ("whole pages only", [])
    assert isinstance(taken, Taken)
    assert [one.slot for one in taken.reached] == ["fwd"]


def test_quick_answer_is_that_of_a_job_that_made_the_calls_before() -> None:
    planner, call = _planner()
    assert isinstance(planner.ask_quickly(call(4000)), NotTaken)
    assert isinstance(planner.ask_quickly(call(4096)), Taken), "a refusal is not remembered"
    quick = planner.ask_quickly(call(4000))
    assert isinstance(quick, Taken)
    assert [one.slot for one in quick.reached] == ["fwd"]
    assert isinstance(planner.ask(call(4000)), NotTaken)

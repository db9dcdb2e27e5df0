"""Asking a provider for its keys: slots that make it go on to its kernel object, and a compiler that only looks."""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ...cache.description import Description
from ...cache.key import display, encode_key
from ...errors import UnstableKey, UsageError
from ...providers.call import Call, Reached
from ...providers.dsl.compiler import compiler_replaced
from ...providers.loaded import loaded_slots
from ...providers.protocol import LiveProvider, Provider
from ...providers.slots import StandInSlot, slots_replaced
from ...text.words import count
from .answers import Answer, Broken, Closed, NotTaken, Taken, WrongSpec
from .closing import Closer

_Lookup = tuple[str, object, "tuple[tuple[str, Description], ...]"]
"""A slot, a key, and what the functions in it do."""

_NO_LOOKUP = "call a function that does; under fake tensors, each call that would launch a kernel looks it up"


def ask_all(provider: Provider, live: LiveProvider, calls: Sequence[Call]) -> list[Answer]:
    """Return which keys a provider looks up for each call. Compiles nothing."""
    with _planning(provider, live) as planner:
        return [planner.ask(call) for call in calls]


def close_all(provider: Provider, live: LiveProvider, calls: Sequence[Call]) -> list[Closed]:
    """Return which keys a provider looks up for each call, at any of the sizes that it leaves open."""
    with _planning(provider, live) as planner:
        closer = Closer(
            provider, planner.ask, planner.ask_quickly, lambda call: (live.pattern(call.variant), call.pass_tile)
        )
        return [closer.close(call) for call in calls]


class _Unstorable(BaseException):
    """A caller hands over a function that a key does not tell from others.

    No `Exception`: it comes out of a lookup, in the midst of code of others, which swallows those.
    """

    def __init__(self, error: UsageError) -> None:
        super().__init__(str(error))
        self.error = error


class _Planner:
    """Makes calls, and takes note of what they look up.

    Each call is asked as if it were the first in its process: where it would compile, a provider still refuses calls
    for reasons that are not in its key (vLLM's FA4 takes only whole pages of K with head_dim 256). So an answer does
    not depend on the order of the calls.
    """

    def __init__(self, provider: Provider, live: LiveProvider, slots: int) -> None:
        self._provider = provider
        self._live = live
        self._slots = slots
        self._lookups: list[_Lookup] = []
        self._kept: set[_Lookup] = set()
        self._is_quick = False
        self._compiled: set[tuple[_Lookup, ...]] = set()
        self._objects: dict[_Lookup, object] = {}
        self._described: dict[_Lookup, Reached] = {}

    def ask(self, call: Call) -> Answer:
        """Make a call, and return what the provider says to it."""
        self._lookups, self._kept = [], set()
        try:
            refusal = self._make(call)
        except UsageError as error:
            return WrongSpec(error)
        except _Unstorable as error:
            return WrongSpec(error.error)
        except Exception:
            return Broken(traceback.format_exc())
        try:
            reached = self._reached()
        except UnstableKey as error:
            return NotTaken(refusal or str(error))
        if refusal:
            return NotTaken(refusal, reached)
        if not reached:
            what = f"looks up no kernel in any of {count(self._slots, 'slot')}"
            if call.variant.caller is not None:
                return WrongSpec(UsageError(f"caller `{call.variant.caller}` {what}", _NO_LOOKUP))
            return Broken(f"the call {what}")
        slot = self._live.main_slot(call.variant)
        mains = [kernel for kernel in reached if kernel.slot == slot]
        return Taken(reached, mains[-1] if mains else None)

    def ask_quickly(self, call: Call) -> Answer:
        """Return the same, but that a key which another call had compiled, after the same lookups, is there.

        As in a job that made that call before: what is refused where it would be compiled is not. Half as long.
        """
        self._is_quick = True
        try:
            return self.ask(call)
        finally:
            self._is_quick = False

    def _make(self, call: Call) -> str:
        """Make a call, and return what the provider says against it. Raises what is not its word on the call."""
        try:
            self._live.call(call)
        except Exception as error:
            reason = self._live.refusal(error)
            if reason is None:
                raise
            return reason
        return ""

    # What the stand-ins ask and tell

    def contains(self, slot: str, key: object) -> bool:
        recognized = self._live.recognizer.recognize(key, sys._getframe(1))
        if recognized.problem is not None:
            raise _Unstorable(recognized.problem)
        lookup = (slot, recognized.key, tuple(recognized.modifiers.items()))
        self._lookups.append(lookup)
        if self._is_quick and tuple(self._lookups) in self._compiled:
            self._kept.add(lookup)
            return True
        return False

    def keep(self, slot: str, key: object, kernel: object) -> None:
        lookup = next(one for one in reversed(self._lookups) if one[:2] == (slot, key))
        self._objects[lookup] = kernel
        self._kept.add(lookup)
        self._compiled.add(tuple(self._lookups))

    # What it comes to

    def _reached(self) -> list[Reached]:
        """Return what the last call looked up. Raises `UnstableKey`."""
        return [self._describe(lookup) for lookup in dict.fromkeys(self._lookups) if lookup in self._kept]

    def _describe(self, lookup: _Lookup) -> Reached:
        if lookup not in self._described:
            slot, key, modifiers = lookup
            named = self._provider.named_key(slot, key)
            fields = {name: display(value) for name, value in named.items()}
            selection = self._provider.selection(self._objects[lookup], fields)
            self._described[lookup] = Reached(
                slot, encode_key(key, list(named), self._provider.passing), fields, selection, dict(modifiers)
            )
        return self._described[lookup]


@contextmanager
def _planning(provider: Provider, live: LiveProvider) -> Iterator[_Planner]:
    slots = loaded_slots(provider)
    planner = _Planner(provider, live, len(slots))

    def slot(name: str) -> StandInSlot:
        return StandInSlot(functools.partial(planner.contains, name), functools.partial(planner.keep, name))

    with (
        slots_replaced(slots, slot),
        compiler_replaced(live.dsl.cute, lambda real, kernel, *_, **__: kernel),
        live.looking_only(),
    ):
        yield planner

"""Asking a provider for its keys: slots that make it go on to its kernel object, and a compiler that only looks."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ...cache.key import display, encode_key
from ...errors import Fa4PrecompileError, UnstableKey, UsageError
from ...providers.call import Call, Reached, Refused
from ...providers.dsl.compiler import compiler_replaced
from ...providers.loaded import loaded_slots
from ...providers.protocol import LiveProvider, Provider
from ...providers.slots import StandInSlot, slots_replaced
from ...text.words import count
from .answers import Answer, Answers, Broken, Taken, WrongSpec

_Lookup = tuple[str, object]


def ask_all(provider: Provider, live: LiveProvider, calls: Sequence[Call]) -> Answers:
    """Return which keys a provider looks up for each call. Compiles nothing."""
    with _planning(provider, live) as planner:
        return Answers(planner.kernels, [planner.ask(call) for call in calls])


class _Refusal(Exception):
    """The provider does not take a call, in its own words."""


class _Planner:
    """Makes calls, and takes note of what they look up.

    What follows a lookup is remembered by all lookups of the call so far: the same key can be refused for one call and
    taken for another (FA4's head_dim 256 backward refuses a gradient of the log-sum-exp, which only the key of its
    preprocessing tells), and what is refused must not depend on the order of the calls.
    """

    def __init__(self, provider: Provider, live: LiveProvider, slots: int) -> None:
        self.kernels: list[Reached] = []
        self._provider = provider
        self._live = live
        self._slots = slots
        self._lookups: list[_Lookup] = []
        self._outcomes: dict[tuple[_Lookup, ...], str] = {}
        self._objects: dict[_Lookup, object] = {}
        self._indices: dict[_Lookup, int] = {}

    def ask(self, call: Call) -> Answer:
        """Make a call, and return what the provider says to it."""
        self._lookups = []
        refusal = ""
        try:
            self._make(call)
        except _Refusal as error:
            refusal = str(error)
        except UsageError as error:
            return WrongSpec(error)
        except Exception:
            return Broken(traceback.format_exc())
        try:
            reached = self._reached()
        except UnstableKey as error:
            return Refused(refusal or str(error))
        if refusal:
            return Refused(refusal, reached)
        if not reached:
            return Broken(f"the call looks up no kernel in any of {count(self._slots, 'slot')}")
        slot = self._live.main_slot(call.variant)
        mains = [index for index in reached if self.kernels[index].slot == slot]
        return Taken(reached, mains[-1] if mains else None)

    def _make(self, call: Call) -> None:
        """Make a call. Raises `_Refusal`, or what is not the provider's word on it."""
        try:
            self._live.call(call)
        except _Refusal:
            raise
        except Exception as error:
            if not self._live.is_refusal(error):
                raise
            reason = _reason(error)
            self._outcomes.setdefault(tuple(self._lookups), reason)
            raise _Refusal(reason) from error

    # What the stand-ins ask and tell

    def contains(self, slot: str, key: object) -> bool:
        self._lookups.append((slot, key))
        outcome = self._outcomes.get(tuple(self._lookups))
        if outcome:
            raise _Refusal(outcome)
        return outcome is not None

    def keep(self, slot: str, key: object, kernel: object) -> None:
        self._outcomes[tuple(self._lookups)] = ""
        self._objects[slot, key] = kernel

    # What it comes to

    def _reached(self) -> list[int]:
        """Return the indices of what the last call looked up; new ones are added. Raises `UnstableKey`."""
        return [self._index(lookup) for lookup in dict.fromkeys(self._lookups) if lookup in self._objects]

    def _index(self, lookup: _Lookup) -> int:
        if lookup not in self._indices:
            slot, key = lookup
            named = self._provider.named_key(slot, key)
            fields = {name: display(value) for name, value in named.items()}
            selection = self._provider.selection(self._objects[lookup], fields)
            reached = Reached(slot, encode_key(key, list(named)), fields, selection)
            self._indices[lookup] = len(self.kernels)
            self.kernels.append(reached)
        return self._indices[lookup]


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


def _reason(error: Exception) -> str:
    """Return the provider's words, or where it failed if it has none."""
    message = " ".join(str(error).split())
    if isinstance(error, (AssertionError, ValueError, NotImplementedError)) and message:
        return message
    if isinstance(error, Fa4PrecompileError):
        return message
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(frame.filename).name}:{frame.lineno}: {frame.line}"
    return f"{type(error).__name__}: {message or 'no message'} ({where})"

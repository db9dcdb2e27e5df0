"""Asking a provider's own compile caches: where on disk each looks for a key, and whether it finds it there.

In a process whose environment is that of the provider's `DiskCache`. Compiles nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from ...cache.key import encode_key
from ...errors import ProductError
from ...providers.call import Call, Identity
from ...providers.disk import DiskEntry, NoEntry
from ...providers.dsl.compiler import compiler_replaced
from ...providers.loaded import loaded_slots
from ...providers.protocol import LiveProvider, Provider
from ...providers.slots import StandInSlot, slots_replaced


@dataclass(frozen=True)
class Looked:
    """A key that a call has looked up in a provider's own cache, and why it is not answered; empty if it is."""

    kernel: Identity
    reason: str


Looking = Callable[[str, Any, object], None]
"""Is told of each lookup: the slot's name, its own cache, and the key."""


def entries_of(
    provider: Provider, live: LiveProvider, calls: Sequence[Call], entry: Callable[[Any, object], DiskEntry | NoEntry]
) -> dict[Identity, set[DiskEntry | NoEntry]]:
    """Return where the keys of calls are looked for on disk.

    Calls whose keys are equal can be looked for in different places: hence the sets.
    """
    found: dict[Identity, set[DiskEntry | NoEntry]] = {}

    def look(slot: str, cache: Any, key: object) -> None:
        found.setdefault(_identity(provider, live, slot, key), set()).add(entry(cache, key))

    _call_all(provider, live, calls, look)
    return found


def lookups_of(provider: Provider, live: LiveProvider, calls: Sequence[Call]) -> list[Looked]:
    """Return whether a provider's own caches have what calls look up, each distinct answer once.

    What they find is called without arguments, which a kernel refuses before it turns to a GPU: so it has loaded.
    """
    found: dict[Looked, None] = {}

    def look(slot: str, cache: Any, key: object) -> None:
        reason = _refusal(cache[key]) if key in cache else "it is not found there, or is no object file that loads"
        found[Looked(_identity(provider, live, slot, key), reason)] = None

    _call_all(provider, live, calls, look)
    return list(found)


def _identity(provider: Provider, live: LiveProvider, slot: str, key: object) -> Identity:
    recognized = live.recognizer.recognize(key, sys._getframe(1))
    return slot, encode_key(key, passing=provider.passing), tuple(sorted(recognized.facts.items()))


def _refusal(kernel: Any) -> str:
    """Return what is wrong with a kernel that was loaded."""
    try:
        kernel()
    except TypeError:
        return ""
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "it can be called without arguments"


def _call_all(provider: Provider, live: LiveProvider, calls: Sequence[Call], look: Looking) -> None:
    live.recognizer.close()  # a process without us hashes functions by itself
    with _told(provider, live, look):
        for call in calls:
            try:
                live.call(call)
            except Exception as error:
                if live.refusal(error) is None:  # what it looks up before it is refused, a job looks up, too
                    raise


@contextmanager
def _told(provider: Provider, live: LiveProvider, look: Looking) -> Iterator[None]:
    """Let `look` hear of each lookup, and the call go on as if its kernel had been there."""
    slots = loaded_slots(provider)
    caches = {slot.name: slot.cache for slot in slots}

    def slot(name: str) -> StandInSlot:
        def contains(key: object) -> bool:
            look(name, caches[name], key)
            return True

        return StandInSlot(contains, lambda key, kernel: None)

    def forbidden(*_: Any, **__: Any) -> NoReturn:
        raise ProductError("the provider compiles what it was told is there")

    with slots_replaced(slots, slot), compiler_replaced(live.dsl.cute, forbidden):
        yield

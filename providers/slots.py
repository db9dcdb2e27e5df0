"""A provider's compile caches: where each is kept, and standing in for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..errors import ProductError


@dataclass(frozen=True)
class Slot:
    """One compile cache: a mapping from keys to compiled functions that an object of the provider's has.

    The library looks a key up by `key in cache` or `cache.get(key)`, puts what it compiled there by `cache[key] = ...`,
    and takes it from there by `cache[key]`. It finds the mapping in its place each time: one that is imported by name
    elsewhere, or kept in a variable, is out of our sight.

    Attributes:
        name: what records call it.
        owner: the object, mostly a function; a module for a variable of the module's.
        attribute: what the cache is called there.
    """

    name: str
    owner: Any
    attribute: str

    @property
    def cache(self) -> Any:
        """What is in its place now."""
        return getattr(self.owner, self.attribute)

    def put(self, cache: Any) -> None:
        """Put another mapping in its place."""
        setattr(self.owner, self.attribute, cache)


class KeptSlot(Slot):
    """A compile cache that a function without arguments makes at its first call and keeps (`functools.cache`).

    `owner` is the function's module, and `attribute` its name there. The function is called to have the mapping; its
    place is taken by one that returns another.
    """

    @property
    def cache(self) -> Any:
        """What the function returns now."""
        return getattr(self.owner, self.attribute)()

    def put(self, cache: Any) -> None:
        """Let the function return another mapping; its own again, if that is what it is."""
        function = getattr(self.owner, self.attribute)
        real = function.real if isinstance(function, _Returning) else function
        setattr(self.owner, self.attribute, real if real() is cache else _Returning(real, cache))


class _Returning:
    """Stands in for a function that keeps a mapping: another one is returned."""

    def __init__(self, real: Any, cache: Any) -> None:
        self.real = real
        self.__module__ = real.__module__  # by which a module's own functions are known
        self._cache = cache

    def __call__(self) -> Any:
        return self._cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class StandInSlot(MutableMapping[object, object]):
    """Stands in for a compile cache; says who has a key, and takes what was compiled."""

    def __init__(self, contains: Callable[[object], bool], keep: Callable[[object, object], None]) -> None:
        self._contains = contains
        self._keep = keep

    def __contains__(self, key: object) -> bool:
        return self._contains(key)

    def __setitem__(self, key: object, kernel: object) -> None:
        self._keep(key, kernel)

    def get(self, key: object, default: object = None) -> object:
        """Return what stands for a compiled kernel if somebody has the key."""
        return launch_nothing if key in self else default

    def __getitem__(self, key: object) -> object:
        return launch_nothing

    def __delitem__(self, key: object) -> None:
        raise ProductError("the provider drops a kernel from its cache")

    def __iter__(self) -> Iterator[object]:
        return iter(())

    def __len__(self) -> int:
        return 0


def launch_nothing(*_: object, **__: object) -> None:
    """Do nothing, as not every provider knows that its tensors have no memory and launches nothing by itself."""


@contextmanager
def slots_replaced(slots: Iterable[Slot], replacement: Callable[[str], StandInSlot]) -> Iterator[None]:
    """Put a stand-in in each compile cache's place, by slot name, until the block ends."""
    originals = [(slot, slot.cache) for slot in slots]
    try:
        for slot, _ in originals:
            slot.put(replacement(slot.name))
        yield
    finally:
        for slot, original in originals:
            slot.put(original)

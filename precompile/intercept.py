"""Standing in for a provider's compile caches and for the DSL's compiler."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

from ..cache.slots import SlotOwner
from .cubin import ProductError


class StandInSlot(MutableMapping[object, object]):
    """Stands in for a compile cache; says who has a key, and takes what was compiled."""

    def __init__(self, contains: Callable[[object], bool], keep: Callable[[object, object], None]) -> None:
        self._contains = contains
        self._keep = keep

    def __contains__(self, key: object) -> bool:
        return self._contains(key)

    def __setitem__(self, key: object, kernel: object) -> None:
        self._keep(key, kernel)

    def __getitem__(self, key: object) -> object:
        return _launch  # which the provider may hold in its hands, as long as it does not call it

    def __delitem__(self, key: object) -> None:
        raise ProductError("the provider drops a kernel from its cache")

    def __iter__(self) -> Iterator[object]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _launch(*_: object) -> None:
    raise ProductError("the provider launches a kernel, though its tensors have no memory")


@contextmanager
def slots_replaced(slots: Mapping[str, SlotOwner], replacement: Callable[[str], StandInSlot]) -> Iterator[None]:
    """Put a stand-in in each compile cache's place, by slot name, until the block ends."""
    originals = {name: slot.compile_cache for name, slot in slots.items()}
    for name, slot in slots.items():
        slot.compile_cache = replacement(name)
    try:
        yield
    finally:
        for name, slot in slots.items():
            slot.compile_cache = originals[name]


class Compiler:
    """Stands in for `cute.compile`, which is called, and may be indexed with options first.

    `function` gets the real one, and what it was called with.
    """

    def __init__(self, real: Any, function: Any) -> None:
        self._real = real
        self._function = function

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Compile, as far as `function` does."""
        return self._function(self._real, *arguments, **options)

    def __getitem__(self, options: Any) -> Compiler:
        return Compiler(self._real[options], self._function)


@contextmanager
def compiler_replaced(cute: Any, function: Any) -> Iterator[None]:
    """Put a `Compiler` in the place of `cute.compile`, until the block ends."""
    real = cute.compile
    cute.compile = Compiler(real, function)
    try:
        yield
    finally:
        cute.compile = real

"""A provider's compile caches: where each is kept, and standing in for them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..errors import ProductError
from .packages import is_in

if TYPE_CHECKING:
    from .protocol import Provider


@dataclass(frozen=True)
class Slot:
    """One compile cache: a mapping from keys to compiled functions that an object of the provider's has.

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


def loaded_modules(package: str) -> list[ModuleType]:
    """Return the modules of a package that are in the process, by name."""
    # A process with torch has thousands of modules, and a plan asks for each key.
    own = [name for name in list(sys.modules) if is_in(name, package)]
    return [module for name in sorted(own) if (module := sys.modules.get(name)) is not None]


def loaded_slots(provider: Provider) -> list[Slot]:
    """Return the compile caches of a provider in the modules that this process has loaded."""
    return [slot for module in loaded_modules(provider.package) for slot in provider.slots_of(module)]


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
def slots_replaced(slots: Iterable[Slot], replacement: Callable[[str], StandInSlot]) -> Iterator[None]:
    """Put a stand-in in each compile cache's place, by slot name, until the block ends."""
    originals = [(slot, slot.cache) for slot in slots]
    for slot, _ in originals:
        slot.put(replacement(slot.name))
    try:
        yield
    finally:
        for slot, original in originals:
            slot.put(original)

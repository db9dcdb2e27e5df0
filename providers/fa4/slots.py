"""FlashAttention-4's compile caches, found in its loaded modules; their names, from its source.

Standard library only. Nothing here lists the slots: they are where the source keeps what it compiles (`written.py`),
and whatever has an attribute that is called as FA4 calls it.
"""

from __future__ import annotations

import functools
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ..slots import KeptSlot, Slot
from .written import maker_names, returned_name, source_of, written

ATTRIBUTE = "compile_cache"


@dataclass(frozen=True)
class Place:
    """Where a module has a compile cache.

    Attributes:
        text: how its source says it: `_attention_fwd.kernels`, `_cache`, `_get_cache()`.
        owner: the object that has it; the module itself for the last two.
        attribute: what it is called there.
    """

    text: str
    owner: Any
    attribute: str

    @property
    def identity(self) -> tuple[int, str]:
        """What is the same for two names of one place."""
        return id(self.owner), self.attribute


def slots_of(module: ModuleType) -> list[Slot]:
    """Return the compile caches of a module: of its own functions, and those that its source puts something into."""
    places = places_of(module)
    several = Counter(id(place.owner) for place in places)
    slots = []
    for place in places:
        kind = KeptSlot if place.text.endswith("()") else Slot
        slots.append(kind(_name(module, place, several[id(place.owner)] > 1), place.owner, place.attribute))
    return slots


def places_of(module: ModuleType) -> list[Place]:
    """Return where a module's compile caches are, each once."""
    found: dict[tuple[int, str], Place] = {}
    for place in [*_by_attribute(module), *_by_source(module)]:
        found.setdefault(place.identity, place)  # a second name is no second slot
    return list(found.values())


def resolve(module: ModuleType, text: str) -> Place | None:
    """Return what a module has by the words of its source; None if that is no cache."""
    *names, last = text.removesuffix("()").split(".")
    owner: Any = module
    for name in names:
        owner = getattr(owner, name, None)
    value = getattr(owner, last, None)
    if text.endswith("()"):
        is_own = owner is module and getattr(value, "__module__", None) == module.__name__
        return Place(text, module, last) if is_own and hasattr(value, "cache_info") else None
    return Place(text, owner, last) if hasattr(value, "__setitem__") and hasattr(value, "__contains__") else None


def _by_attribute(module: ModuleType) -> list[Place]:
    found = []
    for name, owner in list(vars(module).items()):
        if getattr(owner, "__module__", None) == module.__name__ and hasattr(owner, "__dict__"):
            attributes = [attribute for attribute in list(vars(owner)) if attribute.startswith(ATTRIBUTE)]
            found += [Place(f"{name}.{attribute}", owner, attribute) for attribute in attributes]
    return found


def _by_source(module: ModuleType) -> list[Place]:
    places = [resolve(module, text) for text in _read(module)]
    return [place for place in places if place is not None]


# What a slot is called


def _name(module: ModuleType, place: Place, is_one_of_several: bool) -> str:
    """Return the name that is given to the cache's maker, else the owner's, with the attribute if it has several."""
    if isinstance(place.owner, ModuleType):
        if place.text.endswith("()"):
            return returned_name(source_of(place.owner), place.attribute) or place.attribute.strip("_")
        variable = f"{place.owner.__name__.rpartition('.')[2]}.{place.attribute.strip('_')}"
        return _maker_names(place.owner).get(place.attribute, variable)
    home, owner = module, place.text.removesuffix(f".{place.attribute}")
    if getattr(place.owner, "__module__", module.__name__) != module.__name__:
        home = sys.modules.get(place.owner.__module__, module)
        owner = getattr(place.owner, "__name__", owner)
    made = _maker_names(home).get(f"{owner}.{place.attribute}")
    plain = owner.strip("_")
    return made or (f"{plain}.{place.attribute}" if is_one_of_several and place.attribute != ATTRIBUTE else plain)


def slot_names(module: ModuleType) -> Mapping[str, str]:
    """Return what each place of a module is called as a slot, by its words in the source."""
    places = places_of(module)
    return {place.text: slot.name for place, slot in zip(places, slots_of(module), strict=True)}


@functools.cache
def _maker_names(module: ModuleType) -> Mapping[str, str]:
    return maker_names(source_of(module))


@functools.cache
def _read(module: ModuleType) -> Sequence[str]:
    """Return the places that a module's source puts what it compiles into.

    By pattern, as a job would wait a quarter of a second for a parser.
    """
    return list(dict.fromkeys(one.place for one in written(source_of(module)) if one.place))

"""Which slots' kernels FlashAttention-4's source launches with arguments by name; for builds."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from types import ModuleType

from ..loaded import loaded_modules
from .declared import launched_by_name
from .slots import slot_names
from .written import source_of


def launches_by_name(packages: Sequence[str], slot: str) -> bool:
    """Return whether a module of the packages that is in the process launches a slot's kernels so."""
    return any(slot in _by_name(module) for package in packages for module in loaded_modules(package))


@functools.cache
def _by_name(module: ModuleType) -> frozenset[str]:
    slots = slot_names(module)
    if not slots:  # most modules; a parser takes a quarter of a second
        return frozenset()
    return frozenset(slots[place] for place in launched_by_name(source_of(module)) if place in slots)

"""FlashAttention-4's compile caches, found in its loaded modules; their names, from its source.

Standard library only. Nothing here lists the slots: they are whatever has the attribute.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from ..slots import Slot

ATTRIBUTE = "compile_cache"
_NAMED = re.compile(rf"^(\w+)\.{ATTRIBUTE}\s*=\s*\w+\(\s*[\"'](\w+)[\"']", re.MULTILINE)


def slots_of(module: ModuleType) -> list[Slot]:
    """Return the compile caches of the functions that a module defines."""
    own: dict[str, Any] = {}
    for name, owner in list(vars(module).items()):
        if getattr(owner, "__module__", None) != module.__name__ or not hasattr(owner, ATTRIBUTE):
            continue
        if all(owner is not known for known in own.values()):  # a second name is no second slot
            own[name] = owner
    return [Slot(slot_name(module, name), owner, ATTRIBUTE) for name, owner in own.items()]


def slot_name(module: ModuleType, function: str) -> str:
    """Return the name of the slot that a function of a module keeps, or would keep."""
    return _slot_names(module).get(function, function.strip("_"))


def source_of(module: ModuleType) -> str:
    """Return a module's source, or nothing if it was installed without: names are for people only."""
    try:
        return inspect.getsource(module)
    except (OSError, TypeError):
        return ""


@functools.cache
def _slot_names(module: ModuleType) -> Mapping[str, str]:
    """Return function name to slot name, from `function.compile_cache = get_jit_cache("name")` in the source.

    By pattern, as a job would wait a quarter of a second for a parser.
    """
    return dict(_NAMED.findall(source_of(module)))

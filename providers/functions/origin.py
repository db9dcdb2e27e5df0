"""Where a name of a module comes from, by the text of modules."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import FunctionType
from typing import Any

from .pinned import Pinned
from .source import Sources

_MOST_MODULES = 10


def absolute(module: str, names: Mapping[str, Any]) -> str:
    """Return the name of a module that another one, of those names, imports by one that may have dots in front."""
    if not module.startswith("."):
        return module
    package = str(names.get("__package__") or "").split(".")
    level = len(module) - len(module.lstrip("."))
    return ".".join([*package[: len(package) - level + 1], *filter(None, [module.lstrip(".")])])


def imported_as(pinned: Pinned, sources: Sources, function: FunctionType, name: str, value: Any) -> str | None:
    """Return what a pinned value of a function's module is imported as, by the module's text.

    The DSL's functions say where they are defined, and stand-ins for them don't: the text says the same of both.
    """
    own = pinned.name_of(value)
    if own is None:
        return None
    file, names = function.__code__.co_filename, function.__globals__
    for _ in range(_MOST_MODULES):  # from one of the user's to the next
        found = sources.imported_as(file, names, name)
        if found is None:
            return None
        module, name = absolute(found[0], names), found[1]
        there = sys.modules.get(module)
        held = None if there is None else vars(there).get(name)
        if pinned.has(module):
            is_it = held is value if held is not None else name == own.rpartition(".")[2]
            return f"{found[0]}.{name}" if is_it else None
        if there is None or held is not value:
            return None
        file, names = str(getattr(there, "__file__", "")), vars(there)
    return None

"""What a toolchain pins, or what is the same everywhere: told by its name alone. Imports none of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from ..dsl.absent import StandIn, path_of
from ..packages import is_in

_DSL = "cutlass"
# Modules of the standard library that read no file, variable, clock or chance: what is in them is told by its name.
_TELLING = frozenset(
    (
        *("_collections_abc", "_functools", "_operator", "abc", "bisect", "builtins", "cmath", "collections"),
        *("contextlib", "copy", "dataclasses", "decimal", "enum", "fractions", "functools", "heapq", "itertools"),
        *("math", "numbers", "operator", "re", "statistics", "string", "struct", "types", "typing"),
    )
)
# Below the standard library's folder, and no part of it.
_INSTALLED = "site-packages", "dist-packages"


class Pinned:
    """The packages whose code can't change without a toolchain's identity, and what of the standard library tells all.

    `passing` is a package whose name was made for this process: what is in it is named without it.
    """

    def __init__(self, packages: Sequence[str], passing: str = "") -> None:
        self._packages = (_DSL, *packages)
        self._passing = passing

    def has(self, module: str) -> bool:
        """Return whether a module is in one of them."""
        return any(is_in(module, package) for package in self._packages) or (
            module.partition(".")[0] in _TELLING and self.is_standard(module)
        )

    def name_of(self, value: Any) -> str | None:
        """Return the name of a module, class or function that is from one of them, else None."""
        if type(value) is StandIn:
            return path_of(value)
        if isinstance(value, ModuleType):
            return self._plain(value.__name__) if self.has(value.__name__) else None
        module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
        if not isinstance(name, str):
            return None
        if not isinstance(module, str):  # a method of a class in C
            module = getattr(getattr(value, "__objclass__", None), "__module__", None)
        if not isinstance(module, str):
            return None
        return self._plain(f"{module}.{name}") if self.has(module) else None

    def is_decorator(self, module: str) -> bool:
        """Return whether a function of a module that wraps another is one that the DSL has made of it."""
        return is_in(module, _DSL) or is_in(module, StandIn.__module__)

    def _plain(self, name: str) -> str:
        return name[len(self._passing) :] if self._passing and is_in(name, self._passing) else name

    @staticmethod
    def is_standard(module: str) -> bool:
        """Return whether a module is of the standard library: its top's file is, as a user's can have the name."""
        top = module.partition(".")[0]
        if top not in sys.stdlib_module_names:
            return False
        file = getattr(sys.modules.get(top), "__file__", None)
        folder = os.path.dirname(os.__file__) + os.sep
        return file is None or (file.startswith(folder) and file[len(folder) :].split(os.sep)[0] not in _INSTALLED)

"""What a toolchain pins, or what is the same everywhere: told by its name alone. Imports none of it."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Sequence
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
    WrapperDescriptorType,
)
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
_NAMED = (
    *(ClassMethodDescriptorType, FunctionType, GetSetDescriptorType, MemberDescriptorType, MethodDescriptorType),
    WrapperDescriptorType,
)
HEAP_TYPE = 1 << 9
"""CPython's Py_TPFLAGS_HEAPTYPE: a class that can be made while a process runs."""

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
        """Return the name of a module, class or function that is from one of them, else None.

        No instance has one, whatever it says: a wrapper can have the name of what it wraps.
        """
        kind = type(value)
        if kind is StandIn:
            return path_of(value)
        if issubclass(kind, ModuleType):
            return self._plain(value.__name__) if self.has(value.__name__) else None
        if issubclass(kind, type):
            return self._name_of_class(value)
        if kind is MethodType:  # of a class: one of an instance does what that holds
            cls = value.__self__
            of = self._name_of_class(cls) if issubclass(type(cls), type) else None
            return None if of is None else f"{of}.{value.__func__.__name__}"
        if kind is functools._lru_cache_wrapper:
            return self.name_of(value.__wrapped__)
        is_of_module = kind is BuiltinFunctionType and (
            value.__self__ is None or issubclass(type(value.__self__), ModuleType)
        )
        if not (is_of_module or kind in _NAMED):
            return None
        module, name = getattr(value, "__module__", None), value.__qualname__
        if not isinstance(module, str):  # a method of a class in C
            module = getattr(getattr(value, "__objclass__", None), "__module__", None)
        if not isinstance(module, str):
            return None
        return self._plain(f"{module}.{name}") if self.has(module) else None

    def _name_of_class(self, cls: Any) -> str | None:
        module, name = type.__getattribute__(cls, "__module__"), type.__getattribute__(cls, "__qualname__")
        if not isinstance(module, str) or not self.has(module):
            return None
        # The standard library makes classes for others, and some have its name.
        if cls.__flags__ & HEAP_TYPE and ("<locals>" in name or self.is_standard(module)) and not _is_there(cls):
            return None
        return self._plain(f"{module}.{name}")

    def is_of_standard(self, cls: type) -> bool:
        """Return whether a class is one of the standard library's own."""
        return self.is_standard(cls.__module__) and (not cls.__flags__ & HEAP_TYPE or _is_there(cls))

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


def _is_there(cls: type) -> bool:
    """Return whether a class is where it says that it is."""
    found: Any = sys.modules.get(cls.__module__)
    for name in cls.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is cls

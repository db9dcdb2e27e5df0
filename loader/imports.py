"""Taking note of modules as they are imported, so that slots are found also if the provider is imported after us."""

from __future__ import annotations

import importlib.abc
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class ImportWatcher(importlib.abc.MetaPathFinder):
    """A finder that finds nothing itself: it lets the others find, and calls back when the module has been executed.

    What it watches are modules whose names begin with one of `prefixes`. Module, spec and loader are left as they
    would be without it.
    """

    def __init__(self, prefixes: Sequence[str], executed: Callable[[ModuleType], None]) -> None:
        self._prefixes = tuple(prefixes)
        self._executed = executed

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return what the other finders find, with a loader that calls back."""
        if not fullname.startswith(self._prefixes):
            return None
        # Those before it were asked already; and two watchers that ask each other would never end.
        finders = list(sys.meta_path)
        for finder in finders[finders.index(self) + 1 :] if self in finders else finders:
            if not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None and hasattr(spec.loader, "exec_module"):
                    spec.loader = _CallingBack(spec.loader, self._executed)
                return spec
        return None


class _CallingBack(importlib.abc.Loader):
    def __init__(self, loader: Any, executed: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._executed = executed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)  # for who finds the module and does not import it: `python -m`

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._executed(module)

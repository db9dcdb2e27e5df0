"""Taking note of modules as they are imported, so that slots are found also if the provider is imported after us.

Or around us: a provider that imports torch, where we are started, is in the middle of its own import then.
"""

from __future__ import annotations

import importlib.abc
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class ImportWatcher(importlib.abc.MetaPathFinder):
    """A finder that finds nothing itself: it lets the others find, and calls back when the module has been executed.

    What it watches are modules whose names begin with one of `prefixes`, or end with one of `suffixes`. Module, spec
    and loader are left as they would be without it. `executing` is called before the module is executed.
    """

    def __init__(
        self,
        prefixes: Sequence[str],
        executed: Callable[[ModuleType], None],
        suffixes: Sequence[str] = (),
        executing: Callable[[ModuleType], None] | None = None,
    ) -> None:
        self._prefixes = tuple(prefixes)
        self._suffixes = tuple(suffixes)
        self._executed = executed
        self._executing = executing

    def watch(self, *prefixes: str) -> None:
        """Watch modules of other names, too."""
        self._prefixes += prefixes

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return what the other finders find, with a loader that calls back."""
        if not fullname.startswith(self._prefixes) and not fullname.endswith(self._suffixes):
            return None
        # Those before it were asked already; and two watchers that ask each other would never end.
        finders = list(sys.meta_path)
        for finder in finders[finders.index(self) + 1 :] if self in finders else finders:
            if not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None and hasattr(spec.loader, "exec_module"):
                    spec.loader = _CallingBack(spec.loader, self._executing, self._executed)
                return spec
        return None


def call_when_executed(module: ModuleType, executed: Callable[[ModuleType], None]) -> None:
    """Call back at the end of the import of a module that is in the middle of it, unless that fails.

    Python tells nobody of this end but the module's spec, so it is the spec that takes note. One that is of a class of
    its own is left alone.
    """
    spec = module.__spec__
    if type(spec) is ModuleSpec:
        spec.__class__ = _SpecOfExecuting
    if isinstance(spec, _SpecOfExecuting):
        vars(spec).setdefault(_CALLBACKS, []).append(executed)


def call_when_ended(module: ModuleType, ended: Callable[[], None]) -> bool:
    """Call back at the end of the import of a module that is in the middle of it, also if that fails.

    Return whether it will be: not for a spec of a class of its own.
    """
    call_when_executed(module, lambda _: None)
    if isinstance(module.__spec__, _SpecOfExecuting):
        vars(module.__spec__).setdefault(_ENDED, []).append(ended)
        return True
    return False


_CALLBACKS = "_fa4_precompile_callbacks"
_ENDED = "_fa4_precompile_ended"


class _SpecOfExecuting(ModuleSpec):
    """What a spec is while its module is executed."""

    @property
    def _initializing(self) -> bool:
        return True

    @_initializing.setter
    def _initializing(self, value: bool) -> None:
        callbacks = vars(self).pop(_CALLBACKS)
        for ended in vars(self).pop(_ENDED, ()):
            ended()
        self.__class__ = ModuleSpec  # type: ignore[assignment]  # its own base, as an import ends
        self._initializing = value
        module = sys.modules.get(self.name)
        if module is not None and module.__spec__ is self:  # else its import has failed
            for executed in callbacks:
                executed(module)


class _CallingBack(importlib.abc.Loader):
    def __init__(
        self, loader: Any, executing: Callable[[ModuleType], None] | None, executed: Callable[[ModuleType], None]
    ) -> None:
        self._loader = loader
        self._executing = executing
        self._executed = executed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)  # for who finds the module and does not import it: `python -m`

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        if self._executing is not None:
            self._executing(module)
        self._loader.exec_module(module)
        self._executed(module)

"""Which packages of a process are imported without their compiler, and seeing to it that they are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from ..errors import UsageError
from ..providers.dsl.absent import StandIns
from ..providers.dsl.installation import IMPORTED_AS, dsl_parts
from ..providers.loaded import is_executing, is_of, loaded_modules_of
from ..providers.packages import is_in
from ..providers.protocol import Provider
from .choices import Compiler, OnMiss
from .imports import call_when_ended

_MASKS = f"{__name__.partition('.')[0]}.masks"
_INTERFACE = ".interface"


class Absence:
    """The packages that are imported with stand-ins for their compiler, and the job's own modules that are.

    A package that was imported before keeps what it has: nothing is mixed.

    Args:
        users: modules of the job's that import the DSL, for functions that it hands to a provider.
        providers: those that were named, by which it is known what they import for their compiler.
        carries: says whether a folder has the code of a package that is served, though nobody has named it.
    """

    def __init__(self, users: Sequence[str], providers: Sequence[Provider], carries: Callable[[Path], bool]) -> None:
        self.users = (_MASKS, *users)
        traced = dict.fromkeys(library for provider in providers for library in provider.traced)
        idle = dict.fromkeys(package for provider in providers for package in provider.idle)
        self._stand_ins = StandIns(list(traced), list(idle))
        self._carries = carries
        self._packages: set[str] = set()

    def has(self, provider: Provider) -> bool:
        """Return whether a provider is imported without its compiler."""
        return provider.package in self._packages

    def begin(self, provider: Provider) -> str | None:
        """Keep the compiler from a provider from now on; return why not, if it is imported with it already."""
        modules = [module for module in loaded_modules_of(provider) if not self._stand_ins.are_given(module)]
        executing = [module for module in modules if is_executing(module)]
        if len(executing) < len(modules) or (executing and IMPORTED_AS in sys.modules):
            return f"`{provider.package}` was imported before the loader, with its compiler, and keeps it"
        self._packages.add(provider.package)
        if executing:
            finder = self._stand_ins.finder_for(provider.package)
            sys.meta_path.insert(0, finder)
            call_when_ended(min(executing, key=lambda module: len(module.__name__)), finder.forget)
        return None

    def executing(self, module: ModuleType, providers: Sequence[Provider]) -> str | None:
        """Give a module that is about to be executed the stand-ins, if it is one of those that get them.

        Return its package if that is one which nobody has named.
        """
        name = module.__name__
        package = name.removesuffix(_INTERFACE)
        if any(self.has(one) and is_of(name, one) for one in providers) or any(is_in(name, one) for one in self.users):
            self._stand_ins.give(module)
        elif package in self._packages or (package != name and self._is_carried(module)):
            self._packages.add(package)
            self._stand_ins.give(module)
            return package
        return None

    def _is_carried(self, module: ModuleType) -> bool:
        origin = module.__spec__.origin if module.__spec__ is not None else None
        return origin is not None and self._carries(Path(origin).parent)


def runs_without_compiler(compiler: Compiler, on_miss: OnMiss, say: Callable[[str], None]) -> bool:
    """Return whether a job runs without the compiler.

    Raises `UsageError` if it is to store what nothing can compile then.
    """
    parts = dsl_parts()
    missing = ", ".join(part for part, is_there in parts.items() if not is_there)
    if compiler is Compiler.PRESENT or (compiler is Compiler.AUTO and any(parts.values())):
        if missing and any(parts.values()):
            say(f"the DSL is installed in part, without {missing}; `FA4_PRECOMPILE_COMPILER=absent` runs without it")
        return False
    if on_miss is OnMiss.STORE:
        hint = "choose another `on_miss`, or install the DSL"
        raise UsageError("`on_miss=store` compiles, and this job runs without the compiler", hint)
    return True

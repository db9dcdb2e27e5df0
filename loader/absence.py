"""Which packages of a process are imported without their compiler, and seeing to it that they are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from ..errors import UsageError
from ..providers.dsl.absent import StandIns
from ..providers.dsl.installation import IMPORTED_AS, dsl_parts
from ..providers.loaded import is_executing, is_of
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
        self._inner = list(dict.fromkeys(library for provider in providers for library in provider.inner))
        self._carries = carries
        self._packages: set[str] = set()

    def has(self, provider: Provider) -> bool:
        """Return whether a provider is imported without its compiler."""
        return provider.package in self._packages

    def begin(self, package: str, modules: Sequence[ModuleType]) -> str | None:
        """Keep the compiler from a package from now on, of which `modules` are in the process.

        Return why not, if it is imported with it already.
        """
        before = [module for module in modules if not self._stand_ins.are_given(module)]
        executing = [module for module in before if is_executing(module)]
        if len(executing) < len(before) or (executing and IMPORTED_AS in sys.modules):
            return f"`{package}` was imported before the loader, with its compiler, and keeps it"
        self._add(package)
        if executing:
            finder = self._stand_ins.finder_for(package)
            sys.meta_path.insert(0, finder)
            call_when_ended(min(executing, key=lambda module: len(module.__name__)), finder.forget)
        return None

    def package_of(self, interface: ModuleType) -> str | None:
        """Return the package that a module is the interface of, if its code is served wherever it is carried."""
        origin = interface.__spec__.origin if interface.__spec__ is not None else None
        is_one = interface.__name__.endswith(_INTERFACE) and origin is not None and self._carries(Path(origin).parent)
        return interface.__name__.removesuffix(_INTERFACE) if is_one else None

    def executing(self, module: ModuleType, providers: Sequence[Provider]) -> str | None:
        """Give a module that is about to be executed the stand-ins, if it is one of those that get them.

        Return its package if that is one which nobody has named.
        """
        name = module.__name__
        named = any(self.has(one) and is_of(name, one) for one in providers)
        if named or any(is_in(name, one) for one in (*self.users, *self._packages)):
            self._stand_ins.give(module)
            return None
        package = self.package_of(module)
        if package is not None:
            self._add(package)
            self._stand_ins.give(module)
        return package

    def _add(self, package: str) -> None:
        self._packages.add(package)
        for library in self._inner:
            self._stand_ins.add(f"{package}.{library}")


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

"""Which packages of a process are imported without their compiler, and seeing to it that they are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from ..errors import UsageError
from ..providers.dsl.absent import StandIns, stand_ins_of
from ..providers.dsl.installation import IMPORTED_AS, dsl_parts
from ..providers.loaded import is_executing, is_of
from ..providers.packages import is_in
from ..providers.protocol import Provider
from .choices import Compiler, OnMiss
from .imports import call_when_ended

_MASKS = f"{__name__.partition('.')[0]}.masks"
INTERFACE = ".interface"
"""What the module by which a package of the lineage is known is called, in the package."""

Decide = Callable[[str, "Path | None"], "Provider | None"]
"""Says of a package, and the folder that it is in, if that is known, which provider it is of, if it is to be imported
without its compiler."""


class Absence:
    """The packages that are imported with stand-ins for their compiler, and the job's own modules that are.

    A package that was imported before keeps what it has: nothing is mixed.

    Args:
        users: modules of the job's that import the DSL, for functions that it hands to a provider.
        traced: the libraries that are stood in for with the DSL.
        decide: asked once of a package, when it is about to be imported.
    """

    def __init__(self, users: Sequence[str], traced: Sequence[str], decide: Decide) -> None:
        self.users = (_MASKS, *users)
        self._stand_ins = stand_ins_here() or StandIns(traced)
        self._decide = decide
        self._packages: dict[str, Provider] = {}
        self._others: set[str] = set()

    def has(self, provider: Provider) -> bool:
        """Return whether a provider is imported without its compiler."""
        return provider.package in self._packages

    def has_module(self, name: str) -> bool:
        """Return whether a module's name is that of one of such a provider."""
        return any(is_of(name, provider) for provider in self._packages.values())

    def begin(self, provider: Provider, modules: Sequence[ModuleType]) -> str | None:
        """Take note of a provider that is in the process, with `modules`, or in the middle of its import.

        Return why it is left as it is, if it was imported with its compiler.
        """
        package = provider.package
        before = [module for module in modules if stand_ins_of(module) is None]
        executing = [module for module in before if is_executing(module)]
        if len(before) < len(modules):  # by a loader before this one
            self._packages[package] = provider
        elif len(executing) < len(before) or (executing and IMPORTED_AS in sys.modules):
            self._others.add(package)
            return f"`{package}` was imported before the loader, with its compiler, and keeps it"
        if executing and self._is_absent(package, provider.folder):
            finder = self._stand_ins.finder_for(package, self._more(package))
            if call_when_ended(min(executing, key=lambda module: len(module.__name__)), finder.forget):
                sys.meta_path.insert(0, finder)
        return None

    def executing(self, module: ModuleType, providers: Sequence[Provider]) -> str | None:
        """Give a module that is about to be executed the stand-ins, if it is one of those that get them.

        Return its package if that is one which nobody has named.
        """
        name = module.__name__
        if any(is_in(name, one) for one in self.users):
            if self._packages or not self._others:  # else what they are for has its compiler
                self._stand_ins.give(module)
            return None
        named = next((one.package for one in (*self._packages.values(), *providers) if is_of(name, one)), None)
        package = named or package_of(module)
        if package is None or not self._is_absent(package, folder_of(module)):
            return None
        self._stand_ins.give(module, self._more(package))
        return None if named else package

    def _is_absent(self, package: str, folder: Path | None) -> bool:
        if package not in self._packages and package not in self._others:
            provider = self._decide(package, folder)
            if provider is not None:
                self._packages[package] = provider
            else:
                self._others.add(package)
        return package in self._packages

    def _more(self, package: str) -> list[str]:
        provider = self._packages[package]
        return [*provider.idle, *(f"{package}.{library}" for library in provider.inner)]


def package_of(interface: ModuleType) -> str | None:
    """Return the package that a module may be the interface of, by its name."""
    name = interface.__name__
    return name.removesuffix(INTERFACE) if name.endswith(INTERFACE) else None


def folder_of(module: ModuleType) -> Path | None:
    """Return the folder that a module's file is in, if it has one."""
    origin = module.__spec__.origin if module.__spec__ is not None else None
    return Path(origin).parent if origin is not None else None


def stand_ins_here() -> StandIns | None:
    """Return the stand-ins that modules of this process were imported with; they can't be taken back."""
    return next((found for module in list(sys.modules.values()) if (found := stand_ins_of(module)) is not None), None)


def is_to_be_absent(compiler: Compiler, say: Callable[[str], None]) -> bool:
    """Return whether packages are to be imported without the compiler."""
    parts = dsl_parts()
    missing = ", ".join(part for part, is_there in parts.items() if not is_there)
    is_absent = compiler is Compiler.ABSENT or (compiler is Compiler.AUTO and not any(parts.values()))
    if not is_absent and missing and any(parts.values()):
        say(f"the DSL is installed in part, without {missing}; `FA4_PRECOMPILE_COMPILER=absent` runs without it")
    return is_absent


def is_absent_already(say: Callable[[str], None]) -> bool:
    """Return whether something was imported without the compiler in this process, which can't be undone."""
    if stand_ins_here() is None:
        return False
    say("what was imported without the compiler in this process stays so")
    return True


def require_no_store(on_miss: OnMiss) -> None:
    """Raise `UsageError` for a job that is to store what nothing in it can compile."""
    if on_miss is OnMiss.STORE:
        hint = "choose another `on_miss`, or install the DSL"
        raise UsageError("`on_miss=store` compiles, and this job runs without the compiler", hint)

"""What of a provider is in this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .packages import is_in
from .slots import Slot

if TYPE_CHECKING:
    from .protocol import Provider


def loaded_modules(package: str) -> list[ModuleType]:
    """Return the modules of a package that are in the process, by name."""
    # A process with torch has thousands of modules, and a plan asks for each key: so not `is_in`.
    inside = f"{package}."
    own = [name for name in list(sys.modules) if name.startswith(inside) or name == package]
    return [module for name in sorted(own) if (module := sys.modules.get(name)) is not None]


def loaded_modules_of(provider: Provider) -> list[ModuleType]:
    """Return the modules of a provider that are in the process: of its package, and beside it."""
    beside = [module for name in provider.beside if (module := sys.modules.get(name)) is not None]
    return [*loaded_modules(provider.package), *beside]


def is_of(module: str, provider: Provider) -> bool:
    """Return whether a module's name is that of one in a provider's package, or beside it."""
    return is_in(module, provider.package) or module in provider.beside


def loaded_folder(package: str) -> Path | None:
    """Return the folder that a package was loaded from, None if it has none."""
    paths = list(getattr(sys.modules.get(package), "__path__", ()))
    return Path(paths[0]) if paths and os.path.isdir(paths[0]) else None


def can_be_imported(package: str, folder: Path) -> bool:
    """Return whether who imports a package by its name gets that folder: else it was loaded from a path."""
    top, *rest = package.split(".")
    for finder in list(sys.meta_path):
        spec = finder.find_spec(top, None) if hasattr(finder, "find_spec") else None
        if spec is not None:
            locations = (Path(location, *rest) for location in spec.submodule_search_locations or ())
            return any(is_same(folder, location) for location in locations)
    return False


def is_same(folder: Path, other: Path) -> bool:
    """Return whether two paths are those of one folder, whichever links they go by."""
    return os.path.realpath(folder) == os.path.realpath(other)


def plain_names(module: object) -> Mapping[str, Any]:
    """Return a module's names as they are: one that is loaded when it is first used stays as it is."""
    try:
        names: Mapping[str, Any] = object.__getattribute__(module, "__dict__")
    except AttributeError:  # no module, though it is in the list of modules
        return {}
    return names


def is_executing(module: ModuleType) -> bool:
    """Return whether a module is in the middle of its import: it has not all of its names yet."""
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))


def loaded_slots(provider: Provider) -> list[Slot]:
    """Return the compile caches of a provider in the modules that this process has loaded, each once."""
    modules = [module for module in loaded_modules_of(provider) if not is_executing(module)]
    found: dict[tuple[int, str], Slot] = {}
    for module in modules:
        for slot in provider.slots_of(module):
            found.setdefault((id(slot.owner), slot.attribute), slot)
    return list(found.values())

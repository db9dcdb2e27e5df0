"""What of a provider is in this process."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

from .packages import is_in
from .slots import Slot

if TYPE_CHECKING:
    from .protocol import Provider


def loaded_modules(package: str) -> list[ModuleType]:
    """Return the modules of a package that are in the process, by name."""
    # A process with torch has thousands of modules, and a plan asks for each key.
    own = [name for name in list(sys.modules) if is_in(name, package)]
    return [module for name in sorted(own) if (module := sys.modules.get(name)) is not None]


def is_executing(module: ModuleType) -> bool:
    """Return whether a module is in the middle of its import: it has not all of its names yet."""
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))


def loaded_slots(provider: Provider) -> list[Slot]:
    """Return the compile caches of a provider in the modules that this process has loaded."""
    modules = [module for module in loaded_modules(provider.package) if not is_executing(module)]
    return [slot for module in modules for slot in provider.slots_of(module)]

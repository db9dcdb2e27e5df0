"""Importing a package whose parents can't be imported on this machine. In the fork server only.

The package is what is built; what is around it is an inference engine that wants its extensions, a driver and half of
PyPI. vLLM's `vllm_flash_attn` raises without its CUDA extensions, SGLang imports transformers.
"""

from __future__ import annotations

import importlib
import logging
import sys
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from types import ModuleType

from ..packages import package_folder

_LOG = logging.getLogger("fa4_precompile")


def import_module(name: str, package: str) -> ModuleType:
    """Import a module; if a parent of `package` fails, that one is a bare package: its folder, and nothing executed.

    Each is said once. What is raised elsewhere passes through.
    """
    while True:
        try:
            return importlib.import_module(name)
        except Exception as error:
            parent = _failing_parent(package)
            if parent is None:
                raise
            _make_bare(parent)
            _LOG.warning(
                "fa4-precompile: package `%s` can't be imported here (%s: %s); `%s` is imported without it",
                parent,
                type(error).__name__,
                " ".join(str(error).split()),
                name,
            )


def _failing_parent(package: str) -> str | None:
    """Return the outermost parent that is not in the process: Python takes out what fails."""
    parts = package.split(".")
    parents = [".".join(parts[:length]) for length in range(1, len(parts))]
    return next((parent for parent in parents if parent not in sys.modules and package_folder(parent)), None)


def _make_bare(package: str) -> None:
    folder = package_folder(package)
    spec = ModuleSpec(package, None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    sys.modules[package] = module = module_from_spec(spec)
    parent, _, last = package.rpartition(".")
    if parent:
        setattr(sys.modules[parent], last, module)

"""Packages of FlashAttention-4's lineage that are loaded from a folder, as the kernels of the Hugging Face Hub are.

Such a folder is on no path: who loads it gives the package a name when it is run. Standard library only.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

from ...errors import MachineError, UsageError

_INTERFACE = "interface.py"
_METADATA = "metadata.json"


def name_of(folder: Path) -> str:
    """Return what the package in a folder is called when it is loaded: by its `metadata.json`, else as the folder is.

    Keys hold classes by their module, so that a build has to call the package as the job does. Raises `UsageError` for
    a folder that has no such package.
    """
    if not os.path.isfile(folder / _INTERFACE) or not os.path.isfile(folder / "__init__.py"):
        raise UsageError(
            f"`{folder}` is no package of FlashAttention-4's lineage: it lacks `__init__.py` or `{_INTERFACE}`",
            "name the folder of the package itself",
        )
    for place in (folder, folder.parent):
        try:
            content = json.loads((place / _METADATA).read_bytes())
        except (OSError, ValueError):
            continue
        found = content.get("id") if isinstance(content, dict) else None
        if isinstance(found, str) and found and "." not in found:
            return found
    if "." in folder.name:
        raise UsageError(f"a package can't be called `{folder.name}`", f"rename it, or add `{_METADATA}` with an `id`")
    return folder.name


def load(package: str, folder: Path) -> None:
    """Import a package from its folder, unless one of that name is imported. Raises `MachineError`."""
    if package in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(package, folder / "__init__.py")
    if spec is None or spec.loader is None:
        raise MachineError(f"`{folder}` can't be imported", "let this user read it")
    module = importlib.util.module_from_spec(spec)
    sys.modules[package] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[package]
        raise

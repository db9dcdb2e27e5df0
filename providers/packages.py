"""Installed packages: where they are, which version, what source. Imports none of them."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from ..errors import MachineError

BUILD_HINT = "`pip install 'fa4-precompile[build]'`"


def is_in(module: str, package: str) -> bool:
    """Return whether a module's name is that of a package or of something in it."""
    return module.startswith(package) and module[len(package) : len(package) + 1] in ("", ".")


def package_folder(package: str) -> Path | None:
    """Return the folder of an installed package, or None. Imports nothing, not even the parent package."""
    top, *rest = package.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    for location in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(location, *rest)
        if folder.is_dir():
            return folder
    return None


def version(distribution: str) -> str:
    """Return the version of a distribution. Raises `MachineError` if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise MachineError(f"`{distribution}` is not installed", BUILD_HINT) from None


def source_digest(package: str) -> str:
    """Return the SHA-256 over all Python source of a package. Raises `MachineError` if it is not installed."""
    folder = package_folder(package)
    if folder is None:
        raise MachineError(f"package `{package}` is not installed", BUILD_HINT)
    digest = hashlib.sha256()
    for path in sorted(_python_files(folder)):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _python_files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*.py") if path.is_file())

"""Installed packages: where they are, which version, what source. Imports none of them."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Sequence
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
        if os.path.isdir(folder):
            return folder
    return None


def owner(package: str, file: str) -> str | None:
    """Return the name of the distribution that a file of a package was installed by; None if none says so.

    If two list the file, as one was installed over the other, it is the one whose digest of it is right. Reads the
    lists beside the package's top-level folder only, some milliseconds.
    """
    folder = package_folder(package)
    if folder is None:
        return None
    parts = package.split(".")
    site = folder.parents[len(parts) - 1]
    name = "/".join([*parts, file])
    listing = re.compile(rb"^%s,(?:sha256=([\w-]+))?" % re.escape(name.encode()), re.MULTILINE)
    owners: dict[str, str] = {}
    for record in sorted(site.glob("*.dist-info/RECORD")):
        try:
            listed = record.read_bytes()
            found = listing.search(listed) if name.encode() in listed else None
            if found is None:
                continue
            distribution = importlib.metadata.Distribution.at(record.parent)
            if distribution.metadata["Name"]:
                owners[(found[1] or b"").decode()] = distribution.metadata["Name"]
        except Exception:  # somebody else's, broken
            continue
    if len(owners) > 1:
        content = base64.urlsafe_b64encode(hashlib.sha256((folder / file).read_bytes()).digest())
        return owners.get(content.decode().rstrip("="), next(iter(owners.values())))
    return next(iter(owners.values()), None)


def version(distribution: str) -> str:
    """Return the version of a distribution. Raises `MachineError` if it is not installed, or not as it must be."""
    try:
        found = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise MachineError(f"`{distribution}` is not installed", BUILD_HINT) from None
    except Exception as error:  # whatever it is that its metadata lack, or that can't be read
        raise _broken(distribution, f"{type(error).__name__}: {error}") from None
    if not isinstance(found, str):  # None, of metadata without a version
        raise _broken(distribution, "they name no version")
    return found


def is_installed(distribution: str) -> bool:
    """Return whether there is a distribution of a name, whatever is wrong with it."""
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def packages_with(files: Sequence[str]) -> list[str]:
    """Return the packages that have all of some files, by the lists of the installed distributions."""
    last = re.compile(rb"^([\w/]+)/%s," % re.escape(files[0].encode()), re.MULTILINE)
    found = set()
    for folder in map(Path, dict.fromkeys(sys.path)):
        try:
            records = [record.read_bytes() for record in folder.glob("*.dist-info/RECORD")]
        except OSError:
            continue
        for listed in (b"\n" + record for record in records):
            for place in last.findall(listed):
                if all(b"\n%s/%s," % (place, file.encode()) in listed for file in files):
                    found.add(place.decode().replace("/", "."))
    return sorted(found)


def versions(prefix: str) -> dict[str, str]:
    """Return the version of every distribution whose normalized name begins so, by its name.

    Raises `MachineError` if the metadata of one of them can't be read; those of others don't matter.
    """
    names = set()
    for distribution in importlib.metadata.distributions():
        try:
            if prefix not in _metadata(distribution).lower().replace("_", "-"):
                continue  # to parse those of all that is installed takes longer than all else here
            name = (distribution.metadata["Name"] or "").lower().replace("_", "-")
        except Exception:  # somebody else's, broken
            continue
        if name.startswith(prefix):
            names.add(name)
    return {name: version(name) for name in sorted(names)}


def _metadata(distribution: importlib.metadata.Distribution) -> str:
    """Return the text of what a wheel, an old `develop` or an egg leaves, in the order of `Distribution.metadata`."""
    return next(filter(None, map(distribution.read_text, ("METADATA", "PKG-INFO", ""))), "")


def _broken(distribution: str, why: str) -> MachineError:
    return MachineError(f"the metadata of `{distribution}` can't be used: {why}", "install it again")


def source_digest(package: str, beside: Sequence[str] = (), folder: Path | None = None) -> str:
    """Return the SHA-256 over all Python source of a package, which can be in a folder, and of the modules beside it.

    Raises `MachineError` if it is not installed, or a file can't be read.
    """
    folder = folder or package_folder(package)
    if folder is None:
        raise MachineError(f"package `{package}` is not installed", BUILD_HINT)
    files = [(path.relative_to(folder).as_posix(), path) for path in sorted(python_files(folder))]
    files += [(f"{name}:", module_file(name)) for name in sorted(beside)]
    digest = hashlib.sha256()
    for name, path in files:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise MachineError(f"`{path}` can't be read: {error.strerror}", "let this user read it") from None
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def module_file(name: str) -> Path:
    """Return where the source of a module in an installed package is, without importing it."""
    parent, _, stem = name.rpartition(".")
    folder = package_folder(parent) or Path()
    path = folder / f"{stem}.py"
    return path if os.path.isfile(path) else folder / stem / "__init__.py"


def python_files(folder: Path) -> Iterator[Path]:
    """Yield all Python source below a folder, in no order."""
    for parent, _, names in os.walk(folder):  # half the time that `rglob` takes
        files = (os.path.join(parent, name) for name in names if name.endswith(".py"))
        yield from map(Path, filter(os.path.isfile, files))

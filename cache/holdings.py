"""What lies in a cache directory, seen from outside: paths, sizes and ages. Reads no file, and deletes none."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from . import layout
from .contents import can_be_listed
from .kinds import BESIDE, COUNTED
from .outcome import FAULTS, Finding, finding_of
from .store import Root
from .trust import Folder, opened_folder, require_trusted_status

_PATTERNS = MappingProxyType({kind.folder: kind.pattern.count("/") for kind in (*COUNTED, *BESIDE)})
"""How deep readers look for JSON files, whatever they are called."""

_BESIDE = tuple(f"{kind.folder}/" for kind in BESIDE)
_WHERE = re.compile(r"-[0-9a-f]{16}\.json$")

_DEPTH = 3  # folders below the root; no file of ours is deeper


class Held(NamedTuple):
    """A file: its path relative to the root, its size, when it was written or confirmed, and which it is."""

    path: str
    size: int
    changed: float
    identity: tuple[int, int, int]

    @classmethod
    def of(cls, path: str, status: os.stat_result) -> Held:
        """Return what a status says of the file at a path."""
        return cls(path, status.st_size, status.st_mtime, (status.st_dev, status.st_ino, status.st_mtime_ns))


@dataclass(frozen=True)
class Holdings:
    """What lies in a cache directory.

    Attributes:
        files: those that this layout has, by path. What is not mentioned here is not ours.
        strays: files that readers take for ours by where they are, and that can't be: no file of ours is called so.
        temporaries: half-written ones.
        folders: those that can go once they are empty, the innermost first.
        faults: what others could have written, or can't be listed; what is in such a folder is not known.
    """

    files: Mapping[str, Held]
    strays: Mapping[str, Held]
    temporaries: Sequence[Held]
    folders: Sequence[str]
    faults: Sequence[Finding]

    @property
    def size(self) -> int:
        """How many bytes all files have together."""
        return sum(held.size for held in (*self.files.values(), *self.temporaries))


def find_holdings(root: Root) -> Holdings:
    """Look into each folder of a cache. Never raises for what is on disk; what is deleted meanwhile is passed over."""
    walk = _Walk(root)
    with walk.noting("."), opened_folder(root.path, root.trust) as folder:
        walk.look(folder)
    return Holdings(walk.files, walk.strays, walk.temporaries, walk.folders, walk.faults)


def is_beside(path: str) -> bool:
    """Return whether a path is that of an origin or a certificate."""
    return path.startswith(_BESIDE) and can_be_listed(record_of(path))


def record_of(path: str) -> str:
    """Return the record that an origin or a certificate belongs to, by path."""
    return _WHERE.sub(".json", f"records/{path.partition('/')[2]}")


class _Noting:
    """Takes down what goes wrong with a path; what is not there any more is nothing."""

    def __init__(self, root: Root, faults: list[Finding], path: str) -> None:
        self._root, self._faults, self._path = root, faults, path

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if isinstance(error, FAULTS) and not isinstance(error, FileNotFoundError):
            self._faults.append(finding_of(error, self._root.path, self._path))
        return isinstance(error, FAULTS)


class _Walk:
    def __init__(self, root: Root) -> None:
        self.files: dict[str, Held] = {}
        self.strays: dict[str, Held] = {}
        self.temporaries: list[Held] = []
        self.folders: list[str] = []
        self.faults: list[Finding] = []
        self._root = root

    def noting(self, path: str) -> _Noting:
        return _Noting(self._root, self.faults, path)

    def look(self, folder: Folder, depth: int = 0) -> None:
        for name in sorted(os.listdir(folder.descriptor)):
            path = f"{folder.relative}/{name}".removeprefix("/")
            with self.noting(path):
                status = os.stat(name, dir_fd=folder.descriptor, follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    self._take(path, name, status)
                elif stat.S_ISDIR(status.st_mode) and depth < _DEPTH and (layout.is_ours(path) or _is_read(path)):
                    with folder.folder(name) as inner:
                        self.look(inner, depth + 1)
                    if layout.is_ours(path) and path not in layout.ALWAYS:
                        self.folders.append(path)

    def _take(self, path: str, name: str, status: os.stat_result) -> None:
        is_temporary = name.startswith(layout.TEMPORARY)
        is_of_layout = can_be_listed(path) or is_beside(path)
        is_stray = _is_read(path) and path.count("/") == _PATTERNS[path.partition("/")[0]] and path.endswith(".json")
        if not (is_temporary or is_of_layout or is_stray):
            return
        require_trusted_status(status, str(self._root.path / path), self._root.trust)
        held = Held.of(path, status)
        if is_temporary:
            self.temporaries.append(held)
        else:
            (self.files if is_of_layout else self.strays)[path] = held


def _is_read(path: str) -> bool:
    """Return whether readers look at whatever is in a folder, or at a file in it if it is no hidden one."""
    top, *inner = path.split("/")
    return top in _PATTERNS and bool(inner) and not any(part.startswith(".") for part in inner)

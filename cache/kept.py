"""Folders of a cache that stay open between two lookups, so that a kernel takes four opened names and not nine."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from .descriptors import keep
from .trust import FOLDER_FLAGS, Folder, Trust, is_trusted, require_trusted

_Identity = tuple[int, int]  # device and inode


class KeptFolders:
    """The folders of a root that lookups go through, opened once, and closed when nobody refers to the object any more.

    Guarantees
        A folder that is returned, and all that it is in, is trusted as it is at that moment, and is what was opened:
        not what came to its number after another part of the process closed it.
    Not guaranteed
        That it is still what stands at its path: who does not find something asks `is_current`.
    Concurrency
        Any number of threads: who reads refers to it, so nothing is closed under a reader. A forked child has
        descriptors of its own.
    """

    def __init__(self, path: Path, trust: Trust) -> None:
        self._path = path
        self._trust = trust
        self._known: dict[str, tuple[Folder, _Identity]] = {}

    def folder(self, *parts: str) -> Folder:
        """Return a folder by the names that lead to it; none for the root. Raises `UntrustedError` or `OSError`."""
        here = self._checked("") or self._opened("", None, "")
        for part in parts:
            relative = f"{here.relative}/{part}" if here.relative else part
            here = self._checked(relative) or self._opened(relative, here, part)
        return here

    def read(self, relative: str, most: int) -> bytes:
        """Return the bytes of a file by its path, at most so many. Raises as a `Folder` does."""
        *above, folder, name = relative.split("/")
        return self.folder(*above).read_in(folder, name, most)

    def is_current(self) -> bool:
        """Return whether folders were opened and all of them are those that a reader would open now."""
        known = list(self._known.items())
        try:
            return bool(known) and all(
                identity
                == _identity(os.stat(self._path / relative, follow_symlinks=not relative))
                == _identity(os.fstat(folder.descriptor))
                for relative, (folder, identity) in known
            )
        except OSError:
            return False

    def __del__(self) -> None:
        for folder, identity in getattr(self, "_known", {}).values():
            with suppress(OSError):  # another part of the process has closed it
                if _identity(os.fstat(folder.descriptor)) == identity:
                    os.close(folder.descriptor)

    def _checked(self, relative: str) -> Folder | None:
        """Return a folder that is open, None if it is not yet."""
        known = self._known.get(relative)
        if known is None:
            return None
        folder, identity = known
        status = os.fstat(folder.descriptor)
        if identity != (status.st_dev, status.st_ino):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), _shown(self._path, relative))
        if not is_trusted(status, self._trust):
            require_trusted(folder.descriptor, _shown(self._path, relative), self._trust)
        return folder

    def _opened(self, relative: str, parent: Folder | None, name: str) -> Folder:
        held: list[int] = []
        is_kept = False
        try:
            if parent is None:  # which may be reached through symlinks: the person who names it has chosen it
                keep(self._path, os.O_RDONLY | os.O_DIRECTORY, held)
            else:
                keep(name, FOLDER_FLAGS, held, parent.descriptor)
            identity = _identity(require_trusted(held[0], _shown(self._path, relative), self._trust))
            mine = Folder(str(self._path), relative, held[0], self._trust), identity
            kept = self._known.setdefault(relative, mine)  # another thread's, if it was there first
            is_kept = kept is mine
            return kept[0]
        except OSError as error:
            if parent is not None:
                parent.require_no_symlink(name, error)
            raise
        finally:
            for descriptor in () if is_kept else held:
                os.close(descriptor)


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino


def _shown(path: Path, relative: str) -> str:
    return f"{path}/{relative}" if relative else str(path)

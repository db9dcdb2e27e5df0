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
    """The folders of a root that lookups go through, opened once.

    Guarantees
        A folder that is returned, and all that it is in, is trusted as it is at that moment, and is what was opened:
        not what came to its number after another part of the process closed it.
    Not guaranteed
        That it is still what stands at its path: who does not find something asks `is_current`.
    Concurrency
        Any number of threads. A forked child has descriptors of its own. What a thread still reads when another one
        closes fails, or is read from elsewhere: it is what is read that is verified.
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

    def close(self) -> None:
        """Close all. Who reads after that opens them anew."""
        while self._known:
            _, (folder, identity) = self._known.popitem()
            with suppress(OSError):  # another part of the process has closed it
                if _identity(os.fstat(folder.descriptor)) == identity:
                    os.close(folder.descriptor)

    def is_current(self) -> bool:
        """Return whether all folders that were opened are those that a reader would open now."""
        try:
            return all(
                identity
                == _identity(os.stat(self._path / relative, follow_symlinks=not relative))
                == _identity(os.fstat(folder.descriptor))
                for relative, (folder, identity) in list(self._known.items())
            )
        except OSError:
            return False

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
        try:
            if parent is None:  # which may be reached through symlinks: the person who names it has chosen it
                keep(self._path, os.O_RDONLY | os.O_DIRECTORY, held)
            else:
                keep(name, FOLDER_FLAGS, held, parent.descriptor)
            identity = _identity(require_trusted(held[0], _shown(self._path, relative), self._trust))
            opened = Folder(str(self._path), relative, held[0], self._trust)
            return self._known.setdefault(relative, (opened, identity))[0]  # another thread's, if it was there first
        except OSError as error:
            if parent is not None:
                parent.require_no_symlink(name, error)
            raise
        finally:
            for descriptor in held:
                if relative not in self._known or self._known[relative][0].descriptor != descriptor:
                    os.close(descriptor)


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino


def _shown(path: Path, relative: str) -> str:
    return f"{path}/{relative}" if relative else str(path)

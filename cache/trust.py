"""Opening files of a cache only where nobody else could have written them, and reading no more than is believable."""

from __future__ import annotations

import enum
import errno
import hashlib
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ..errors import RecordError, UntrustedError
from .descriptors import opened, use

_Got = TypeVar("_Got")


class Trust(enum.Enum):
    """Whose files are loaded into a process."""

    OWN = "own"
    """Files and folders of the effective user or root that nobody else can write (the default)."""

    ANY = "any"
    """Whatever is there: a shared folder whose other writers are trusted with the job's account."""


# O_NONBLOCK: a FIFO put in a file's place must not hang the job.
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW
FOLDER_FLAGS = _FLAGS | os.O_DIRECTORY


@dataclass(frozen=True)
class Folder:
    """An open folder of a cache, `relative` to its root (`""` is the root itself).

    Guarantees
        Every check is made on what was opened, so nothing can be swapped between check and use. Below the root no
        symlink is followed.

    Raises
    ------
        `UntrustedError` for what others could have written (under `Trust.ANY` too for a symlink, or for a file that is
        not regular), `RecordError` for what is larger than it can be, `OSError` for what the system refuses.
    """

    root: str
    relative: str
    descriptor: int
    trust: Trust

    @contextmanager
    def folder(self, name: str) -> Iterator[Folder]:
        """Open a folder in it."""
        try:
            with opened(name, FOLDER_FLAGS, folder=self.descriptor) as descriptor:
                yield self.inner(name, descriptor)
        except OSError as error:
            self.require_no_symlink(name, error)
            raise

    @contextmanager
    def below(self, relative: str) -> Iterator[tuple[Folder, str]]:
        """Open the folder that a path below this one is in, and yield it with the path's last part."""
        *folders, name = relative.split("/")
        with ExitStack() as stack:
            here = self
            for part in folders:
                here = stack.enter_context(here.folder(part))
            yield here, name

    def read_in(self, folder: str, name: str, most: int) -> bytes:
        """Return the bytes of a file in a folder in it, at most so many. It takes half the time that `folder` does."""
        try:
            return use(folder, FOLDER_FLAGS, self.descriptor, lambda it: self.inner(folder, it).read(name, most))
        except OSError as error:
            self.require_no_symlink(folder, error)
            raise

    def inner(self, name: str, descriptor: int) -> Folder:
        """Return a folder in it that was opened."""
        relative = self._relative(name)
        require_trusted(descriptor, f"{self.root}/{relative}", self.trust)
        return Folder(self.root, relative, descriptor, self.trust)

    def names(self) -> list[str]:
        """Return what is in it, sorted, but for what is hidden: half-written files, and those of other programs."""
        return sorted(name for name in os.listdir(self.descriptor) if not name.startswith("."))

    def read(self, name: str, most: int) -> bytes:
        """Return the bytes of a file in it, at most so many."""
        return self._file(name, most, _read_all)

    def digest(self, name: str, most: int) -> tuple[int, str]:
        """Return how many bytes a file in it has, at most so many, and their SHA-256; never holds all of them."""
        return self._file(name, most, _digest_all)

    def size(self, name: str) -> int:
        """Return the size of a file in it, in bytes, as `read` would find it."""
        return self._file(name, sys.maxsize, _just_size)

    def _file(self, name: str, most: int, read: Callable[[int, int, int], _Got | None]) -> _Got:
        """Open a file, and return what `read` makes of its descriptor, its size and `most`: None if it has more."""

        def look(descriptor: int) -> _Got | None:
            path = f"{self.root}/{self._relative(name)}"
            status = require_trusted(descriptor, path, self.trust)
            if not stat.S_ISREG(status.st_mode):
                raise UntrustedError(path, "it is no regular file")
            return read(descriptor, status.st_size, most) if status.st_size <= most else None

        try:
            got = use(name, _FLAGS, self.descriptor, look)
        except OSError as error:
            self.require_no_symlink(name, error)
            raise
        if got is None:
            raise RecordError(self._relative(name), f"is damaged: it has more than the {most:,} bytes that it can")
        return got

    def require_no_symlink(self, name: str, error: OSError) -> None:
        """Raise `UntrustedError` if it is because of a symlink that something could not be opened."""
        # What is not there is none; most roots have no seal, and it need not be looked for twice.
        if error.errno != errno.ENOENT and error.filename == name and _is_symlink(name, self.descriptor):
            raise UntrustedError(f"{self.root}/{self._relative(name)}", "it is a symlink") from None

    def _relative(self, name: str) -> str:
        return f"{self.relative}/{name}" if self.relative else name


@contextmanager
def opened_folder(path: Path, trust: Trust) -> Iterator[Folder]:
    """Open the root of a cache.

    The root itself may be reached through symlinks: the person who names it has chosen it.
    Raises `UntrustedError`, or `OSError` if it can't be opened.
    """
    with opened(path, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        require_trusted(descriptor, str(path), trust)
        yield Folder(str(path), "", descriptor, trust)


_PIECE = 1 << 16
"""What is read at a time: little enough to be in a core's cache when it is digested."""


def _read_all(descriptor: int, size: int, most: int) -> bytes | None:
    """Return all that there is, or None if it is more than `most` bytes: a file may grow after it was opened."""
    parts: list[bytes] = []
    left, chunk = most + 1, size + 1  # a byte more, so that the usual file takes one call
    while left > 0 and (part := os.read(descriptor, min(chunk, left))):
        if len(part) == size and not parts:  # and there was no byte more
            return part
        parts.append(part)
        left, chunk = left - len(part), _PIECE
    return b"".join(parts) if left > 0 else None


def _digest_all(descriptor: int, _size: int, most: int) -> tuple[int, str] | None:
    """Return how much there is and its SHA-256, or None, as `_read_all`."""
    digest, left = hashlib.sha256(), most + 1
    while left > 0 and (part := os.read(descriptor, min(_PIECE, left))):
        digest.update(part)
        left -= len(part)
    return (most + 1 - left, digest.hexdigest()) if left > 0 else None


def _just_size(_descriptor: int, size: int, _most: int) -> int:
    return size


def _is_symlink(name: str, folder: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False


def is_trusted(status: os.stat_result, trust: Trust) -> bool:
    """Return whether nobody else could have written what has a status, or it does not matter."""
    is_ours = not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and status.st_uid in (os.geteuid(), 0)
    return is_ours or trust is Trust.ANY


def require_trusted(descriptor: int, path: str, trust: Trust) -> os.stat_result:
    """Return the status of what is open. Raises `UntrustedError` if others could have written it, or `OSError`."""
    status = os.fstat(descriptor)
    require_trusted_status(status, path, trust)
    return status


def require_trusted_status(status: os.stat_result, path: str, trust: Trust) -> None:
    """Raise `UntrustedError` if others could have written what has a status."""
    if is_trusted(status, trust):
        return
    if status.st_uid not in (os.geteuid(), 0):
        raise UntrustedError(path, f"it belongs to user {status.st_uid}")
    raise UntrustedError(path, f"others can write it (mode {stat.S_IMODE(status.st_mode):04o})")

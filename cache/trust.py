"""Opening files of a cache only where nobody else could have written them, and reading no more than is believable."""

from __future__ import annotations

import enum
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import RecordError, UntrustedError
from .descriptors import opened


class Trust(enum.Enum):
    """Whose files are loaded into a process."""

    OWN = "own"
    """Files and folders of the effective user or root that nobody else can write (the default)."""

    ANY = "any"
    """Whatever is there: a shared folder whose other writers are trusted with the job's account."""


# O_NONBLOCK: a FIFO put in a file's place must not hang the job.
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW


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
        relative = self._relative(name)
        with self._open(name, os.O_DIRECTORY) as descriptor:
            _require_trusted(descriptor, f"{self.root}/{relative}", self.trust)
            yield Folder(self.root, relative, descriptor, self.trust)

    @contextmanager
    def below(self, relative: str) -> Iterator[tuple[Folder, str]]:
        """Open the folder that a path below this one is in, and yield it with the path's last part."""
        *folders, name = relative.split("/")
        with ExitStack() as stack:
            here = self
            for part in folders:
                here = stack.enter_context(here.folder(part))
            yield here, name

    def names(self) -> list[str]:
        """Return what is in it, sorted, but for what is hidden: half-written files, and those of other programs."""
        return sorted(name for name in os.listdir(self.descriptor) if not name.startswith("."))

    def read(self, name: str, most: int) -> bytes:
        """Return the bytes of a file in it, at most so many."""
        with self._open(name, 0) as descriptor:
            size = self._size(descriptor, name)
            data = _read_all(descriptor, size, most) if size <= most else None
        if data is None:
            raise RecordError(self._relative(name), f"is damaged: it has more than the {most:,} bytes that it can")
        return data

    def size(self, name: str) -> int:
        """Return the size of a file in it, in bytes, as `read` would find it."""
        with self._open(name, 0) as descriptor:
            return self._size(descriptor, name)

    def _size(self, descriptor: int, name: str) -> int:
        path = f"{self.root}/{self._relative(name)}"
        status = _require_trusted(descriptor, path, self.trust)
        if not stat.S_ISREG(status.st_mode):
            raise UntrustedError(path, "it is no regular file")
        return status.st_size

    @contextmanager
    def _open(self, name: str, flags: int) -> Iterator[int]:
        try:
            with opened(name, _FLAGS | flags, folder=self.descriptor) as descriptor:
                yield descriptor
        except OSError as error:
            if error.filename == name and _is_symlink(name, self.descriptor):
                raise UntrustedError(f"{self.root}/{self._relative(name)}", "it is a symlink") from None
            raise

    def _relative(self, name: str) -> str:
        return f"{self.relative}/{name}" if self.relative else name


@contextmanager
def opened_folder(path: Path, trust: Trust) -> Iterator[Folder]:
    """Open the root of a cache.

    The root itself may be reached through symlinks: the person who names it has chosen it.
    Raises `UntrustedError`, or `OSError` if it can't be opened.
    """
    with opened(path, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        _require_trusted(descriptor, str(path), trust)
        yield Folder(str(path), "", descriptor, trust)


def _read_all(descriptor: int, size: int, most: int) -> bytes | None:
    """Return all that there is, or None if it is more than `most` bytes: a file may grow after it was opened."""
    parts: list[bytes] = []
    left, chunk = most + 1, size + 1  # a byte more, so that the usual file takes one call, and a small one to end
    while left > 0 and (part := os.read(descriptor, min(chunk, left))):
        parts.append(part)
        left, chunk = left - len(part), 1 << 16
    return b"".join(parts) if left > 0 else None


def _is_symlink(name: str, folder: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _require_trusted(descriptor: int, path: str, trust: Trust) -> os.stat_result:
    status = os.fstat(descriptor)
    if trust is Trust.ANY:
        return status
    if status.st_uid not in (os.geteuid(), 0):
        raise UntrustedError(path, f"it belongs to user {status.st_uid}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UntrustedError(path, f"others can write it (mode {stat.S_IMODE(status.st_mode):04o})")
    return status

"""Opening files of a cache only where nobody else could have written them."""

from __future__ import annotations

import enum
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import UntrustedError


class Trust(enum.Enum):
    """Whose files are loaded into a process."""

    OWN = "own"
    """Files and folders of the effective user or root that nobody else can write (the default)."""

    ANY = "any"
    """Whatever is there: a shared folder whose other writers are trusted with the job's account."""


_NOFOLLOW = os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def opened_folder(path: Path, trust: Trust) -> Iterator[int]:
    """Open the root of a cache and yield its descriptor.

    The root itself may be reached through symlinks: the person who names it has chosen it.
    Raises `UntrustedError`, or `OSError` if it can't be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _require_trusted(descriptor, str(path), trust)
        yield descriptor
    finally:
        os.close(descriptor)


def read_file(root: Path, root_descriptor: int, relative: str, trust: Trust) -> bytes:
    """Read a file below a root, component by component, following no symlink.

    Every check is made on the opened descriptor, so nothing can be swapped between check and use.
    Raises `UntrustedError` (for a symlink under `Trust.ANY` too), or `OSError` if it can't be read.
    """
    *folders, name = relative.split("/")
    here, path = root_descriptor, str(root)
    opened: list[int] = []
    try:
        for folder in folders:
            path = f"{path}/{folder}"
            here = _open(folder, os.O_DIRECTORY, here, path)
            opened.append(here)
            _require_trusted(here, path, trust)
        path = f"{path}/{name}"
        descriptor = _open(name, 0, here, path)
        opened.append(descriptor)
        status = _require_trusted(descriptor, path, trust)
        if not stat.S_ISREG(status.st_mode):
            raise UntrustedError(path, "it is no regular file")
        return _read_all(descriptor, status.st_size)
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _read_all(descriptor: int, size: int) -> bytes:
    parts = []
    while part := os.read(descriptor, size + 1):  # a byte more, so that the usual file takes one call, and one to end
        parts.append(part)
    return b"".join(parts)


def _open(name: str, flags: int, folder: int, path: str) -> int:
    # O_NONBLOCK: a FIFO put in a file's place must not hang the job.
    try:
        return os.open(name, os.O_RDONLY | os.O_NONBLOCK | flags | _NOFOLLOW, dir_fd=folder)
    except OSError:
        if os.path.islink(path):
            raise UntrustedError(path, "it is a symlink") from None
        raise


def _require_trusted(descriptor: int, path: str, trust: Trust) -> os.stat_result:
    status = os.fstat(descriptor)
    if trust is Trust.ANY:
        return status
    if status.st_uid not in (os.geteuid(), 0):
        raise UntrustedError(path, f"it belongs to user {status.st_uid}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UntrustedError(path, f"others can write it (mode {stat.S_IMODE(status.st_mode):04o})")
    return status

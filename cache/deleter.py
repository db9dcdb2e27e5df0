"""Deleting files of one cache directory, beside readers, builders and others who delete.

Guarantees
    Nothing is deleted outside the root, through a symlink, or in a folder that others can write. A file that is not
    any more what was meant to go stays: it is taken from its name, looked at once more, and put back.
Not guaranteed
    That a file which is put back was never missing: for that moment it is to a reader what it is if it is deleted. Who
    is killed in it leaves a `.tmp-` file in its place.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import MappingProxyType

from ..errors import CacheError, MachineError, UntrustedError
from . import layout
from .holdings import Held, find_holdings
from .store import Root
from .trust import Folder, opened_folder

SAFE_S = 3600.0
"""So long what was written or confirmed stays: a builder that needs it is about to name it, or to finish it."""

_HINTS = MappingProxyType(
    {
        errno.EROFS: "the cache is on a read-only filesystem; delete where it is mounted from",
        errno.EACCES: "do it as the user whom the cache belongs to",
        errno.EPERM: "do it as the user whom the cache belongs to",
    }
)


@contextmanager
def deleting(root: Root) -> Iterator[Deleter]:
    """Open a root to delete files of it. Raises `UntrustedError`, or `OSError` if it can't be opened."""
    with opened_folder(root.path, root.trust) as folder:
        yield Deleter(root, folder)


class Deleter:
    """Deletes files of an open root. Raises `MachineError` where that can't be done, and `UntrustedError`."""

    def __init__(self, root: Root, folder: Folder) -> None:
        self._root = root
        self._folder = folder

    def delete(self, held: Held, is_meant: Callable[[Held], bool]) -> bool:
        """Delete a file if it is still one that is meant, and return whether it is gone by our doing."""
        try:
            with self._folder.below(held.path) as (folder, name):
                if not _is_meant(folder, name, is_meant):
                    return False
                return _delete(folder, name, is_meant)
        except FileNotFoundError:  # another was faster
            return False
        except OSError as error:
            raise self._refused(error, held.path) from None

    def remove_folder(self, path: str) -> None:
        """Remove a folder that is empty. Best effort."""
        with suppress(OSError), self._folder.below(path) as (folder, name):
            os.rmdir(name, dir_fd=folder.descriptor)

    def _refused(self, error: OSError, path: str) -> MachineError:
        hint = _HINTS.get(error.errno or 0, "try again: what was deleted until now is a cache that is whole")
        return MachineError(f"can't delete from the cache `{self._root.path}`: {error.strerror} (`{path}`)", hint)


def sweep_temporaries(root: Root) -> int:
    """Delete what killed builders left half-written, and return how many files. Best effort."""
    oldest = time.time() - SAFE_S
    swept = 0
    with suppress(UntrustedError, OSError), deleting(root) as deleter:
        for held in find_holdings(root).temporaries:
            with suppress(MachineError, UntrustedError):
                swept += deleter.delete(held, lambda now: now.changed < oldest)
    return swept


def require_unsealed(root: Root, hint: str) -> None:
    """Raise `CacheError` with a hint if a cache is sealed."""
    if root.is_sealed:
        raise CacheError(str(root.path), "is sealed, so nothing of it may go", hint)


def _is_meant(folder: Folder, name: str, is_meant: Callable[[Held], bool]) -> bool:
    status = os.stat(name, dir_fd=folder.descriptor, follow_symlinks=False)
    return stat.S_ISREG(status.st_mode) and is_meant(Held.of(f"{folder.relative}/{name}".removeprefix("/"), status))


def _delete(folder: Folder, name: str, is_meant: Callable[[Held], bool]) -> bool:
    """Delete a file if it is meant. Between a look at a name and an unlink a builder can put another file there."""
    aside = f"{layout.TEMPORARY}{secrets.token_hex(8)}"
    is_gone = False
    try:
        os.rename(name, aside, src_dir_fd=folder.descriptor, dst_dir_fd=folder.descriptor)
        if _is_meant(folder, aside, is_meant):
            os.unlink(aside, dir_fd=folder.descriptor)
            is_gone = True
    finally:
        if not is_gone:
            _put_back(folder.descriptor, aside, name)
    return is_gone


def _put_back(folder: int, aside: str, name: str) -> None:
    """Give a file its name again, unless there is a newer one."""
    try:
        os.link(aside, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except (FileExistsError, FileNotFoundError):
        pass
    except OSError:  # a filesystem without hard links
        with suppress(FileNotFoundError):
            os.rename(aside, name, src_dir_fd=folder, dst_dir_fd=folder)
    with suppress(FileNotFoundError):
        os.unlink(aside, dir_fd=folder)

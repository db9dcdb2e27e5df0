"""A library's own cache on disk, as far as it can be filled from outside: for jobs that have no loader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class DiskEntry:
    """Where a library looks for one kernel on disk, and what it asks for there.

    Attributes:
        file: path of the object file, relative to the folder of the cache.
        lock: path of the file that it locks before it looks, and makes if it is not there.
        symbol: the function in the object file, without the prefix `__tvm_ffi_`.
    """

    file: str
    lock: str
    symbol: str


@dataclass(frozen=True)
class NoEntry:
    """A library does not look for a kernel on disk, or nobody can know where."""

    reason: str


class DiskCache(Protocol):
    """How a library keeps what it compiled on disk by itself. Frozen, equal by value, and can be pickled."""

    @property
    def conditions(self) -> Sequence[str]:
        """What must be the same in a job as where the names of the files were made; a phrase each."""

    def environment(self, folder: Path) -> Mapping[str, str]:
        """Return the variables by which a process has its cache in a folder, set before it imports the library."""

    def entry(self, cache: object, key: object, folder: Path) -> DiskEntry | NoEntry:
        """Return where a compile cache of a process with that environment looks for a key."""

"""A file on this machine of which any piece can be read by itself."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..cache.descriptors import keep
from ..errors import CarryError, RefusedError

_HINT = "name a file that `fa4-precompile pack` wrote"


class RangedFile:
    """An open file. It is a `Ranged`. Raises `CarryError` if it can't be opened, `RefusedError` if it is none."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._held: list[int] = []
        try:
            # It may be a symlink: the person who names it has chosen it. O_NONBLOCK: a FIFO must not hang.
            keep(path, os.O_RDONLY | os.O_NONBLOCK, self._held)
            status = os.fstat(self._held[0])
        except OSError as error:
            self.close()
            raise CarryError(self.name, f"can't be opened: {error.strerror}", _HINT) from None
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise RefusedError(self.name, "it is no regular file", _HINT)
        self._size = status.st_size

    def size(self) -> int:
        """Return how many bytes it has."""
        return self._size

    def read(self, start: int, length: int) -> bytes:
        """Return so many bytes from there."""
        parts: list[bytes] = []
        while length > 0:
            try:
                part = os.pread(self._held[0], length, start)
            except OSError as error:
                raise CarryError(self.name, f"can't be read: {error.strerror}") from None
            if not part:
                raise CarryError(self.name, "has become shorter while it was read")
            parts.append(part)
            start, length = start + len(part), length - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Close it."""
        while self._held:
            os.close(self._held.pop())

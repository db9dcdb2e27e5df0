"""A file at a URL of which pieces are read: an archive that need not be downloaded whole."""

from __future__ import annotations

from ..errors import CarryError
from .remote import Remote


class RemoteFile:
    """A file at a URL. It is a `Ranged`.

    Guarantees
        No more is read than was asked for, whatever the server answers, and a piece has the bytes from where it was
        asked for. One that changes its size while it is read is given up.
    """

    def __init__(self, remote: Remote) -> None:
        self.name = remote.name
        self._remote = remote
        self._size: int | None = None

    def size(self) -> int:
        """Return how many bytes it has; asked once."""
        if self._size is None:
            found = self._remote.size("")
            if found is None:
                raise CarryError(self.name, "there is no such file", "look at the URL")
            self._size = found
        return self._size

    def read(self, start: int, length: int) -> bytes:
        """Return so many bytes from there."""
        if length == 0:
            return b""
        piece = self._remote.piece("", start, length)
        if piece is None:
            raise CarryError(self.name, "there is no such file", "look at the URL")
        if piece.total and piece.total != self.size():
            raise CarryError(self.name, "another file was put there while this one was read")
        if len(piece.data) != length:
            at = f"{length} bytes from byte {start} on are asked for, and {len(piece.data)} come"
            raise CarryError(self.name, f"it is shorter than it said: {at}")
        return piece.data

    def close(self) -> None:
        """Nothing is open: connections are the session's, for all files."""

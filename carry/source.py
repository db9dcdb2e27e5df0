"""Where files of a cache can be had from: another root, an archive, a tree at a URL, an OCI artifact."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from ..cache.contents import Contents, Entry


class Source(Protocol):
    """A place that has a list of files, and the files.

    Nothing that it gives is believed: who receives it compares every byte with the list, and the list with what is
    expected. It raises `CarryError` for a place that can't be reached, or does not have what its list says.
    """

    name: str
    """What messages call it."""

    def contents(self) -> Contents:
        """Return what is there. Raises `RecordError` for a list that is none."""

    def signature(self) -> bytes:
        """Return the bytes of the signature over the list; none if it is not signed."""

    def read(self, entries: Sequence[Entry]) -> Iterator[tuple[Entry, bytes]]:
        """Yield the bytes of some files, in whatever order is quickest, not verified, and no more than they can be.

        Of bytes that are there already nothing is read.
        """

    def close(self) -> None:
        """Close what is open."""


class Ranged(Protocol):
    """Bytes of which any piece can be read by itself: a file here or at a URL, a blob of a registry.

    It raises `CarryError` if it can't be reached, or has fewer bytes than it said.
    """

    name: str
    """What messages call it."""

    def size(self) -> int:
        """Return how many bytes it has."""

    def read(self, start: int, length: int) -> bytes:
        """Return so many bytes from there."""

    def close(self) -> None:
        """Close what is open."""

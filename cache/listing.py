"""The list of contents of a cache that is there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from . import layout
from .contents import Contents, Entry
from .kinds import Listed
from .library import Library
from .outcome import Finding, error_of
from .record import Record
from .store import Root


def list_contents(root: Root) -> Contents:
    """Return the list of contents of a cache: its seal if it has one. Of blobs, what records say; all else is read.

    Raises `RecordError` or `UntrustedError` for the first file that can't be listed, and what `require_layout` raises:
    what is not whole has no name.
    """
    root.require_layout()
    if (sealed := root.sealed) is not None:
        return sealed
    return Contents.of(entry for one in _sound(root.listed()) for entry in entries_of(one))


def _sound(found: Iterable[Listed[Any] | Finding]) -> Iterator[Listed[Any]]:
    for one in found:
        if isinstance(one, Finding):
            raise error_of(one)
        yield one


def entries_of(found: Listed[Any]) -> Iterator[Entry]:
    """Yield the line of a JSON file, and that of the blob that it names, as it says."""
    yield found.entry
    if isinstance(found.item, (Record, Library)):
        item = found.item
        yield Entry(layout.blob_path(item.blob), item.blob, item.blob_bytes)

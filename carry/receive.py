"""Taking files of a cache from somewhere else into a root.

Guarantees
    A file is published only when it has the bytes that the list states, and is what its name says. Blobs come before
    the records that name them, and manifests last: a root that was left half-way reads as what it is. Nothing but files
    of this layout is written, and nothing outside the root.
Security
    The list is as good as what vouches for it: a digest that is expected, or a signature.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ..cache import layout
from ..cache.contents import Contents, Entry
from ..cache.kinds import parse_file
from ..cache.library import Library
from ..cache.manifest import Manifest
from ..cache.publish import Publisher
from ..cache.record import Record
from ..errors import CarryError, RecordError, RefusedError
from .source import Source


@dataclass(frozen=True)
class Received:
    """What was carried: how many files are in the list, how many of them came, and how many bytes these have."""

    files: int
    came: int
    bytes: int


def receive(
    source: Source, publisher: Publisher, wanted: Contents, arrived: Callable[[int], None] = lambda size: None
) -> Received:
    """Publish those of the `wanted` files that are not there yet. `arrived` is told the size of each that came.

    Raises `RefusedError` for what is not as the list says, and whatever the source and the publisher raise.
    """
    publisher.create()
    here = {entry for entry in publisher.root.present(wanted.entries.values()) if publisher.confirm(entry.path)}
    missing = [entry for entry in wanted.in_order() if entry not in here]
    try:
        for entry, data in _read(source, [entry for entry in missing if entry.kind == "blobs"]):
            publisher.publish_file(entry, data)
            arrived(entry.size)
        described = dict(_read(source, [entry for entry in missing if entry.kind != "blobs"]))
        for entry, data in described.items():
            _require_sound(source, wanted, publisher, entry, data)
        _require_still_there(publisher, [entry for entry in wanted.in_order() if entry not in described])
        for entry in missing:
            if entry in described:
                publisher.publish_file(entry, described[entry])
                arrived(entry.size)
    finally:
        publisher.sync()
    return Received(len(wanted.entries), len(missing), sum(entry.size for entry in missing))


def _read(source: Source, entries: Sequence[Entry]) -> Iterator[tuple[Entry, bytes]]:
    """Yield files with the bytes that the list states, and each once."""
    left = set(entries)
    for entry, data in source.read(entries) if entries else ():
        if entry not in left:
            raise RefusedError(source.name, f"`{entry.path}` comes twice, or was not asked for")
        left.discard(entry)
        if len(data) != entry.size or hashlib.sha256(data).hexdigest() != entry.digest:
            raise RefusedError(source.name, f"`{entry.path}` does not have the bytes that the list of contents states")
        yield entry, data
    if left:
        raise RefusedError(source.name, f"`{min(left).path}` is in its list of contents, and is not there")


def _require_still_there(publisher: Publisher, entries: Sequence[Entry]) -> None:
    """Confirm what others are about to name, hours after it came perhaps. Raises `CarryError` if some of it is gone."""
    for entry in entries:
        if not publisher.confirm(entry.path):
            raise CarryError(str(publisher.root.path), f"`{entry.path}` was deleted before all had arrived")


def _require_sound(source: Source, wanted: Contents, publisher: Publisher, entry: Entry, data: bytes) -> None:
    """Raise `RefusedError` unless a file is what its name says, and all that it names comes with it or is there."""
    try:
        item = parse_file(entry.path, data)
    except RecordError as error:
        raise RefusedError(source.name, str(error)) from None
    match item:
        case Record():
            named = [layout.blob_path(item.blob), layout.toolchain_path(item.toolchain)]
        case Library():
            named = [layout.blob_path(item.blob)]
        case Manifest():
            named = [layout.record_path(item.toolchain, kernel) for kernel in item.kernels]
        case _:
            named = []
    for path in named:
        if path not in wanted.entries and not publisher.root.has_file(path):
            raise RefusedError(source.name, f"`{entry.path}` names `{path}`, which is not in its list of contents")

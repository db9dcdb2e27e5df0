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
from dataclasses import dataclass, replace
from itertools import groupby
from types import MappingProxyType
from typing import TypeVar

from ..cache import layout
from ..cache.contents import Contents, Entry
from ..cache.kinds import parse_file
from ..cache.library import Library
from ..cache.listing import list_contents
from ..cache.manifest import Manifest
from ..cache.outcome import FAULTS
from ..cache.publish import Publisher
from ..cache.record import Record
from ..cache.store import Root
from ..cache.toolchain import Toolchain
from ..errors import CarryError, RecordError, RefusedError
from .source import Source

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Received:
    """What was carried: how many files of the list were not there yet, and how many bytes these have.

    `is_sealed` says whether the root has the list as its seal.
    """

    came: int
    bytes: int
    is_sealed: bool = False


_NAMING = MappingProxyType({"records": ("blobs", "toolchains"), "libraries": ("blobs",), "manifests": ("records",)})
"""Which kinds of files those of a kind name."""


def receive(
    source: Source, publisher: Publisher, wanted: Contents, arrived: Callable[[int], None] = lambda size: None
) -> Received:
    """Publish those of the `wanted` files that are not there yet. `arrived` is told the size of each that came.

    Raises `RefusedError` for what is not as the list says, and whatever the source and the publisher raise.
    """

    def is_there(path: str, size: int | None) -> bool:
        return wanted.has(path, size) or (path not in wanted.entries and publisher.root.has_file(path))

    return _received(source, publisher, wanted, is_there, Contents({}), arrived)


def receive_all(
    source: Source,
    root: Root,
    contents: Contents,
    signature: bytes,
    arrived: Callable[[int], None] = lambda size: None,
) -> Received:
    """Publish all that is in a source, and its seal last, if the root is new, or sealed, or has just these files then.

    Of a root that is sealed, readers see what its seal lists until the new one is there, and then what that lists; what
    it does not list stays on disk, unread. What both list, with other bytes, is replaced last of all, so that such a
    file is damaged to readers of the old seal for no longer than that takes.

    `signature` is that over the list, as it was verified. Raises as `receive`.
    """
    is_to_be_sealed = root.is_sealed or root.is_new
    publisher = Publisher(root, is_to_come=True)
    sealed = (root.sealed if root.is_sealed else None) or Contents({})
    received = _received(source, publisher, contents, contents.has, sealed, arrived)
    if sealed == contents and not received.came:
        if signature and signature != root.signature():
            publisher.publish_signature(signature)
            publisher.sync()
        return replace(received, is_sealed=True)
    if not is_to_be_sealed and not _has_just(root, contents):
        return received
    publisher.publish_seal(contents.render(), signature)
    publisher.sync()
    return replace(received, is_sealed=True)


def _received(
    source: Source,
    publisher: Publisher,
    wanted: Contents,
    is_there: Callable[[str, int | None], bool],
    sealed: Contents,
    arrived: Callable[[int], None],
) -> Received:
    """Publish what is missing, kind by kind, so that nothing is there before what it names.

    Last comes what is listed by a seal that is there, with other bytes.
    """
    publisher.create()
    here = {entry for entry in publisher.root.present(wanted.entries.values()) if publisher.confirm(entry.path)}
    missing = [entry for entry in wanted.in_order() if entry not in here]
    put = {entry for entry in wanted.entries.values() if entry in here}

    def sound(entries: Sequence[Entry]) -> Iterator[tuple[Entry, bytes]]:
        for entry, data in read_verified(source, entries):
            if entry.kind != "blobs":
                require_sound(source.name, entry, data, is_there)
            yield entry, data

    def published(entry: Entry) -> None:
        put.add(entry)
        arrived(entry.size)

    try:
        for is_replacing in (False, True):
            some = [entry for entry in missing if (entry.path in sealed.entries) is is_replacing]
            for kind, group in groupby(some, lambda entry: entry.kind):
                if kind in _NAMING:
                    _require_still_there(publisher, put, kind)
                publisher.publish_files(sound(list(group)), published)
    finally:
        publisher.sync()
    return Received(len(missing), sum(entry.size for entry in missing))


def _has_just(root: Root, contents: Contents) -> bool:
    """Return whether these files are all that is in a root: not if it had others, or something that can't be listed."""
    try:
        return list_contents(root) == contents
    except FAULTS:
        return False


def require_whole(source: Source, contents: Contents) -> None:
    """Raise `RefusedError` unless all that files of a list name is in the list. Reads all of them but blobs."""
    for entry, data in read_verified(source, [one for one in contents.in_order() if one.kind != "blobs"]):
        require_sound(source.name, entry, data, contents.has)


def read_verified(source: Source, entries: Sequence[Entry]) -> Iterator[tuple[Entry, bytes]]:
    """Yield files with the bytes that the list states, and each once. Raises `RefusedError` for others."""
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


def parsed(place: str, parse: Callable[[str, bytes], _Item], entry: Entry, data: bytes) -> _Item:
    """Return what a JSON file says. Raises `RefusedError` for one that is damaged, or not what its name says."""
    try:
        return parse(entry.path, data)
    except RecordError as error:
        raise RefusedError(place, str(error)) from None


def _require_still_there(publisher: Publisher, put: set[Entry], kind: str) -> None:
    """Confirm what files of a kind are about to name, hours after it came perhaps.

    Raises `CarryError` if some of it is gone.
    """
    for entry in sorted(put):
        if entry.kind in _NAMING[kind] and not publisher.confirm(entry.path):
            raise CarryError(str(publisher.root.path), f"`{entry.path}` was deleted before all had arrived")


def require_sound(
    place: str, entry: Entry, data: bytes, is_there: Callable[[str, int | None], bool]
) -> Record | Toolchain | Library | Manifest:
    """Return what a JSON file says.

    Raises `RefusedError` unless it is what its name says, and all that it names comes with it or is there. Of a blob
    the size is told, too: that which is stated.
    """
    item = parsed(place, parse_file, entry, data)
    named: list[tuple[str, int | None]] = []
    match item:
        case Record():
            named = [(layout.blob_path(item.blob), item.blob_bytes), (layout.toolchain_path(item.toolchain), None)]
        case Library():
            named = [(layout.blob_path(item.blob), item.blob_bytes)]
        case Manifest():
            named = [(layout.record_path(item.toolchain, kernel), None) for kernel in item.kernels]
    for path, size in named:
        if not is_there(path, size):
            of_size = "" if size is None else f" of {size:,} bytes"
            raise RefusedError(place, f"`{entry.path}` names `{path}`{of_size}, which is not in its list of contents")
    return item

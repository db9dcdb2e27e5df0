"""A tree at a URL: the files of a root under its own names, beside the list of them.

`seal` is the list, and written last: what it lists is there. A tree can be copied with the storage's own tools, and a
copy of it is a root.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..cache import layout
from ..cache.contents import Contents, Entry
from ..errors import CarryError, RecordError, RefusedError
from .receive import Received, read_verified
from .remote import Remote
from .several import Several
from .source import Source
from .web import Denied


class TreeSource:
    """The files of a tree, some at a time side by side. It is a `Source`."""

    def __init__(self, remote: Remote) -> None:
        self.name = remote.name
        self._remote = remote

    def contents(self) -> Contents:
        """Return what its `seal` lists. Raises `RecordError` for one that is none."""
        data = self._remote.whole(layout.SEAL, layout.MOST_SEAL_BYTES + 1)
        if data is None:
            raise CarryError(
                self.name,
                f"there is no cache: it has no `{layout.SEAL}`",
                "look at the URL; `push` writes one, and a push that was cut off has to be done again",
            )
        if len(data) > layout.MOST_SEAL_BYTES:
            raise RefusedError(
                self.name, f"its `{layout.SEAL}` has more than the {layout.MOST_SEAL_BYTES:,} bytes that it can"
            )
        return Contents.parse(f"{self.name.rstrip('/')}/{layout.SEAL}", data)

    def signature(self) -> bytes:
        """Return the bytes of the signature over the `seal`; none if it is not signed."""
        try:
            data = self._remote.whole(layout.SIGNATURE, layout.MOST_SIGNATURE_BYTES + 1) or b""
        except Denied:  # what storage says of a file that is not there to whom may not list
            return b""
        if len(data) > layout.MOST_SIGNATURE_BYTES:
            raise RefusedError(self.name, f"its `{layout.SIGNATURE}` has more bytes than a signature can")
        return data

    def read(self, entries: Sequence[Entry]) -> Iterator[tuple[Entry, bytes]]:
        """Yield the bytes of some files as they come, of each a byte more than the list states at most."""
        return Several(self._file, lambda entry: entry.size).each(entries)

    def close(self) -> None:
        """Nothing is open: connections are the session's."""

    def _file(self, entry: Entry) -> bytes:
        data = self._remote.whole(entry.path, entry.size + 1)
        if data is None:
            raise CarryError(self.name, f"its `{layout.SEAL}` lists `{entry.path}`, which is not there")
        return data


def push_tree(
    source: Source, contents: Contents, signature: bytes, remote: Remote, arrived: Callable[[int], None]
) -> Received:
    """Write a cache to a URL: what it has, then its `seal`. `arrived` is told the sizes of files, also of those there.

    Of what is there already nothing is written: blobs of their name and size, and what the `seal` that is there lists
    as it is to be. What is there beside it stays, and is in no list then. Raises `CarryError`; `RefusedError` if the
    source does not have what it lists.
    """
    remote.require_writable()
    there = remote.sizes()
    sealed = _sealed(remote) if layout.SEAL in there else Contents({})

    def is_there(entry: Entry) -> bool:
        is_known = entry.kind == "blobs" or sealed.entries.get(entry.path) == entry
        return is_known and there.get(entry.path) == entry.size

    missing = [entry for entry in contents.in_order() if not is_there(entry)]
    arrived(contents.size - sum(entry.size for entry in missing))
    for path, content in layout.TOP:
        if there.get(path) != len(content):
            remote.write(path, content)
    blobs = [entry for entry in missing if entry.kind == "blobs"]
    for some in (blobs, [entry for entry in missing if entry.kind != "blobs"]):
        _write_all(source, some, remote, arrived)
    if missing or sealed.fingerprint != contents.fingerprint or layout.SIGNATURE in there or signature:
        _seal(remote, contents, signature, layout.SIGNATURE in there)
    return Received(len(missing), sum(entry.size for entry in missing))


def _sealed(remote: Remote) -> Contents:
    try:
        return TreeSource(remote).contents()
    except (RecordError, RefusedError):  # damaged: it vouches for nothing, and is replaced
        return Contents({})


def _write_all(source: Source, entries: Sequence[Entry], remote: Remote, arrived: Callable[[int], None]) -> None:
    def write(read: tuple[Entry, bytes]) -> None:
        entry, data = read
        remote.write(entry.path, data)

    reading = read_verified(source, entries)
    for (entry, _), _ in Several(write, lambda read: read[0].size).each(reading):
        arrived(entry.size)


def _seal(remote: Remote, contents: Contents, signature: bytes, was_signed: bool) -> None:
    """Write the list last, and a signature that is over no other."""
    if signature:
        remote.write(layout.SIGNATURE, signature)
    elif was_signed:
        remote.delete(layout.SIGNATURE)
    remote.write(layout.SEAL, contents.render())

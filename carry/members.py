"""The members of a pack, as plain bytes: a tar archive of which each byte follows from the list of contents.

Written here, not by `tarfile`, whose headers may change from one Python to the next: packs are compared with these.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..cache import layout
from ..cache.contents import Contents, Entry

END = b"\0" * 1024
"""What a tar archive ends with."""

README_CONTENT = b"""This folder is a kernel cache of fa4-precompile, layout 1, as it was packed.

`fa4-precompile verify --cache THIS_FOLDER` checks every byte. The folder can be copied, moved and mounted read-only.
"""
"""Part of the format, so not the text that the folder of a cache has, which may get better."""

_BLOCK = 512
_NAME_BYTES = 100
_PREFIX_BYTES = 155
_FILE, _EXTENDED = b"0", b"x"


class Member(NamedTuple):
    """A file of a pack as it is in the archive: a header, the data, and zeros up to a whole number of blocks."""

    header: bytes
    size: int
    padding: bytes

    @classmethod
    def of(cls, path: str, size: int) -> Member:
        """Return the member that a file of a path and size is."""
        return cls(_headers(path, size), size, bytes(-size % _BLOCK))

    @property
    def length(self) -> int:
        """How many bytes it takes."""
        return len(self.header) + self.size + len(self.padding)

    def render(self, data: bytes) -> bytes:
        """Return the bytes of it with that data."""
        return b"".join((self.header, data, self.padding))

    def data(self, rendered: bytes) -> bytes | None:
        """Return the data of its bytes, or None if all else in them is not exactly as `render` writes it."""
        start, stop = len(self.header), len(self.header) + self.size
        whole = len(rendered) == self.length and rendered.startswith(self.header) and rendered.endswith(self.padding)
        return rendered[start:stop] if whole else None


def text_in(path: str, rendered: bytes) -> bytes | None:
    """Return the data of a text's member whose size is not known, or None if it is no such member."""
    data = rendered[_BLOCK:].rstrip(b"\0")
    return data if Member.of(path, len(data)).render(data) == rendered else None


def constants() -> Iterator[tuple[str, bytes]]:
    """Yield the files that every pack has behind the list of contents and its signature."""
    yield layout.FORMAT, layout.FORMAT_CONTENT
    yield layout.TAG, layout.TAG_CONTENT
    yield layout.README, README_CONTENT


def members(contents: Contents) -> Iterator[tuple[Entry, Member]]:
    """Yield the files of a list and their members, in the order of a pack."""
    for entry in contents.in_order():
        yield entry, Member.of(entry.path, entry.size)


def _headers(path: str, size: int) -> bytes:
    """Return the header of a file: one block, or three if its path does not fit into one."""
    if path.isascii():
        name, prefix = path, ""
        if len(path) > _NAME_BYTES:
            cut = path.find("/", len(path) - _NAME_BYTES - 1)
            name, prefix = path[cut + 1 :], path[: max(cut, 0)]
        if (prefix and len(prefix) <= _PREFIX_BYTES) or len(path) <= _NAME_BYTES:
            return _header(name.encode(), prefix.encode(), size, _FILE)
    record = _record("path", path)
    extended = _header(b"PaxHeader", b"", len(record), _EXTENDED) + record + bytes(-len(record) % _BLOCK)
    return extended + _header(path.encode("ascii", "replace")[:_NAME_BYTES], b"", size, _FILE)


def _header(name: bytes, prefix: bytes, size: int, kind: bytes) -> bytes:
    """Return a block of POSIX.1-1988 (`ustar`): mode 0444, nobody's, of no time."""
    before = b"".join(
        (name.ljust(_NAME_BYTES, b"\0"), b"0000444\0", b"0000000\0", b"0000000\0", b"%011o\0" % size, b"%011o\0" % 0)
    )
    after = b"".join(
        (kind, bytes(100), b"ustar\x0000", bytes(32), bytes(32), bytes(8), bytes(8), prefix.ljust(_PREFIX_BYTES, b"\0"))
    ).ljust(_BLOCK - len(before) - 8, b"\0")
    return b"%b%06o\0 %b" % (before, sum(before) + sum(after) + 8 * ord(" "), after)


def _record(field: str, value: str) -> bytes:
    """Return a record of a pax header, which begins with its own length."""
    rest = f" {field}={value}\n".encode()
    length = len(rest)
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest

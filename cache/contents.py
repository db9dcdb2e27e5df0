"""What is in a cache: each file that counts, with its SHA-256 and size, and the one name of all of it.

Not in it is what differs from build to build and says nothing of a kernel's bytes: the origins and
certificates of kernels, locks, what is there for people. A file of such a list in the root is its seal.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple

from ..errors import RecordError
from . import layout
from .record import MOST_BLOB_BYTES

SCHEMA = "fa4-precompile/contents/1"

_DIGITS = "[0-9a-f]"
_KINDS = MappingProxyType(
    {
        # In the order of publishing: nothing is there before what it names.
        "blobs": (re.compile(rf"blobs/sha256/({_DIGITS}{{2}})/(?P<digest>\1{_DIGITS}{{62}})"), MOST_BLOB_BYTES),
        "toolchains": (re.compile(rf"toolchains/{_DIGITS}{{32}}\.json"), layout.MOST_BYTES),
        "libraries": (re.compile(rf"libraries/{_DIGITS}{{32}}\.json"), layout.MOST_BYTES),
        "records": (
            re.compile(rf"records/{_DIGITS}{{32}}/({_DIGITS}{{2}})/\1{_DIGITS}{{62}}\.json"),
            layout.MOST_BYTES,
        ),
        "manifests": (
            re.compile(rf"manifests/{_DIGITS}{{32}}/{_DIGITS}{{32}}\.[\w-]{{1,64}}-{_DIGITS}{{8}}\.json"),
            layout.MOST_MANIFEST_BYTES,
        ),
    }
)
_LINE = re.compile(rf"(?P<digest>{_DIGITS}{{64}}) (?P<size>0|[1-9][0-9]{{0,11}}) (?P<path>[^\s]+)")
_PLACE = MappingProxyType({kind: place for place, kind in enumerate(_KINDS)})


class Entry(NamedTuple):
    """A file of a cache: its path relative to the root, its SHA-256, and its size in bytes."""

    path: str
    digest: str
    size: int

    @property
    def kind(self) -> str:
        """The folder at the root that it is in: `blobs`, `records` and so on."""
        return self.path.partition("/")[0]


@dataclass(frozen=True)
class Contents:
    """The files of a cache, by path.

    Guarantees
        Of what is parsed, every path is one that this layout has, relative, in canonical spelling, and once; the name
        of a blob is its digest; no size is larger than one of its kind can be.
    """

    entries: Mapping[str, Entry]

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Contents:
        """Return the list of some files."""
        return cls({entry.path: entry for entry in sorted(set(entries))})

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the list as it is written: the name of all that is in the cache."""
        return hashlib.sha256(self.render()).hexdigest()

    @property
    def size(self) -> int:
        """How many bytes the files have together."""
        return sum(entry.size for entry in self.entries.values())

    @property
    def kernels(self) -> int:
        """How many of the files are records."""
        return sum(1 for _ in self.of_kind("records"))

    def in_order(self) -> list[Entry]:
        """Return the files in the order of publishing: blobs first, manifests last."""
        return sorted(self.entries.values(), key=lambda entry: (_PLACE[entry.kind], entry.path))

    def of_kind(self, kind: str) -> Iterator[Entry]:
        """Yield the files of a kind, by path."""
        return (entry for entry in self.entries.values() if entry.kind == kind)

    def only(self, wanted: Callable[[Entry], bool]) -> Contents:
        """Return the list of those files of it that are wanted."""
        return Contents({path: entry for path, entry in self.entries.items() if wanted(entry)})

    def has(self, path: str, size: int | None = None) -> bool:
        """Return whether a file is in it, with that size if one is given."""
        entry = self.entries.get(path)
        return entry is not None and size in (None, entry.size)

    def render(self) -> bytes:
        """Return the list as text: a line with the schema, then `SHA-256 SIZE PATH` for each file, by path."""
        lines = [SCHEMA, *(f"{entry.digest} {entry.size} {entry.path}" for entry in self.entries.values())]
        return ("\n".join(lines) + "\n").encode()

    @classmethod
    def parse(cls, source: str, data: bytes) -> Contents:
        """Read what `render` wrote. Raises `RecordError` for anything else, byte for byte."""
        try:
            first, *lines = data.decode().split("\n")
        except UnicodeDecodeError:
            raise RecordError(source, "is damaged: no text") from None
        if first != SCHEMA:
            raise RecordError(source, f"does not begin with {SCHEMA!r}, which this version reads")
        entries = [_parsed(source, number, line) for number, line in enumerate(lines[:-1], 2)]
        found = cls.of(entries)
        if found.render() != data:
            raise RecordError(source, "is damaged: its lines are not in order, not whole or not all different")
        return found


def can_be_listed(path: str) -> bool:
    """Return whether a path, relative to a root, is one that a list of contents can have."""
    pattern, _ = _KINDS.get(path.partition("/")[0], (None, 0))
    return pattern is not None and pattern.fullmatch(path) is not None


def _parsed(source: str, number: int, line: str) -> Entry:
    match = _LINE.fullmatch(line)
    if match is None:
        raise RecordError(source, f"is damaged: line {number} is no `SHA-256 SIZE PATH`")
    entry = Entry(match["path"], match["digest"], int(match["size"]))
    pattern, most = _KINDS.get(entry.kind, (None, 0))
    found = pattern.fullmatch(entry.path) if pattern else None
    if found is None:
        raise RecordError(source, f"is damaged: line {number} names a file that no cache has")
    if found.groupdict().get("digest", entry.digest) != entry.digest:
        raise RecordError(source, f"is damaged: line {number} names a blob that is not called by its digest")
    if entry.size > most:
        raise RecordError(source, f"is damaged: line {number} names a file of more than {most:,} bytes")
    return entry

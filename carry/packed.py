"""Reading a pack, all of it or some files. docs/reference/cache-layout.md, "The pack format".

Security
    Nothing in a pack says where a file goes: its members are not parsed but compared, byte for byte, with those that
    its list of contents makes. So there is no way to write `..`, a link, a device, a file twice or one more. Nothing is
    decompressed beyond the size that it must have, and what is held in memory is a few of the largest files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from typing import NamedTuple

from ..cache import layout
from ..cache.contents import Contents, Entry
from ..cache.crew import Crew
from ..errors import RecordError, RefusedError
from . import zstd
from .members import END, Member, constants, members, text_in
from .receive import read_verified, require_sound
from .source import Ranged

_PIECE_BYTES = 8 << 20
"""How much is read at a time, but for a frame that is larger."""

_MOST_CHECKERS = 4


class _Frame(NamedTuple):
    """Where a frame is in the pack, what it takes there, and what its content has."""

    start: int
    packed: int
    size: int


class PackSource:
    """A pack as a `Source`. Creating the object reads its table and its list of contents.

    Raises `RefusedError` for what is no pack, to the byte, and whatever reading the bytes raises.
    """

    def __init__(self, ranged: Ranged) -> None:
        self.name = ranged.name
        self._ranged = ranged
        self._files: dict[int, tuple[Entry, Member]] = {}
        self._frames = self._table()
        self._contents = self._listed()
        files = list(members(self._contents))
        fixed = [Member.of(path, len(data)).render(data) for path, data in constants()]
        # In front of what is always there: the list, and perhaps its signature. Behind all: the end.
        top = len(self._frames) - len(fixed) - len(files) - 1
        if top not in (1, 2):
            raise self._refused("it does not have the members that its list of contents makes")
        self._fixed = {**dict(enumerate(fixed, top)), len(self._frames) - 1: END}
        self._files = dict(enumerate(files, top + len(fixed)))
        self._places = {entry: number for number, (entry, _) in self._files.items()}
        self._require_sizes()
        self._signature = self._text(1, layout.SIGNATURE, layout.MOST_SIGNATURE_BYTES) if top == 2 else b""

    def contents(self) -> Contents:
        """Return what is in it."""
        return self._contents

    def signature(self) -> bytes:
        """Return the bytes of the signature over the list; none if it is not signed."""
        return self._signature

    def read(self, entries: Sequence[Entry]) -> Iterator[tuple[Entry, bytes]]:
        """Yield the bytes of some files, in the order of the pack."""
        for number, rendered in self._read(sorted(self._places[entry] for entry in entries)):
            entry, member = self._files[number]
            data = member.data(rendered)
            if data is None:
                raise self._odd(number)
            yield entry, data

    def require_canonical(self, arrived: Callable[[int], None] = lambda size: None) -> None:
        """Raise `RefusedError` unless every byte of it is as `pack` writes it, and it is whole by itself.

        `arrived` is told the size of what was looked at. Nothing is kept. The bytes are read by several threads.
        """
        for number, rendered in self._read(sorted(self._fixed)):
            if rendered != self._fixed[number]:
                raise self._odd(number)
        with Crew(min(_MOST_CHECKERS, os.cpu_count() or 1)) as checkers:
            groups = self._together(list(self._files))
            for number in [checkers.give(partial(self._require_sound, group)) for group in groups]:
                arrived(checkers.result(number))

    def close(self) -> None:
        """Close the bytes."""
        self._ranged.close()

    # How it is done

    def _table(self) -> list[_Frame]:
        try:
            table = zstd.read_table(self._ranged.read, self._ranged.size())
        except zstd.FrameError as error:
            raise self._refused(f"{error}; it is no pack, or not all of one") from None
        starts = accumulate((packed for packed, _ in table), initial=0)
        return [_Frame(start, packed, size) for start, (packed, size) in zip(starts, table, strict=False)]

    def _listed(self) -> Contents:
        try:
            return Contents.parse(layout.SEAL, self._text(0, layout.SEAL, layout.MOST_SEAL_BYTES))
        except RecordError as error:
            raise self._refused(str(error)) from None

    def _text(self, number: int, path: str, most: int) -> bytes:
        """Return the data of a member whose size is not known."""
        if not self._frames or self._frames[number].size > most or not _is_short(self._frames[number]):
            raise self._refused(f"it has no `{path}` that can be one")
        for _, rendered in self._read([number]):
            if text := text_in(path, rendered):
                return text
        raise self._odd(number)

    def _require_sizes(self) -> None:
        """Raise `RefusedError` unless the table tells of frames that can be those of the members."""
        sizes = {number: len(rendered) for number, rendered in self._fixed.items()}
        sizes |= {number: member.length for number, (_, member) in self._files.items()}
        for number, frame in enumerate(self._frames):
            if frame.size != sizes.get(number, frame.size) or not _is_short(frame):
                raise self._odd(number)

    def _require_sound(self, numbers: Sequence[int]) -> int:
        """Return how many bytes some files have, if they are what they must be."""
        entries = [self._files[number][0] for number in numbers]
        for entry, data in read_verified(self, entries):
            if entry.kind != "blobs":
                require_sound(self.name, entry, data, self._contents.has)
        return sum(entry.size for entry in entries)

    def _read(self, numbers: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """Yield the content of some frames in order, those that lie together read at a time. Their sizes are believed.

        Raises `RefusedError` for a frame that does not have the size that the table states.
        """
        decompress = zstd.decompressor()
        for group in self._together(numbers):
            start = self._frames[group[0]].start
            stop = self._frames[group[-1]].start + self._frames[group[-1]].packed
            piece = memoryview(self._ranged.read(start, stop - start))
            for number in group:
                frame = self._frames[number]
                packed = piece[frame.start - start : frame.start - start + frame.packed]
                try:
                    yield number, decompress(packed, frame.size)
                except zstd.FrameError as error:
                    raise self._refused(f"its member {number} {error}") from None

    def _together(self, numbers: Sequence[int]) -> Iterator[list[int]]:
        group: list[int] = []
        room = 0
        for number in numbers:
            packed = self._frames[number].packed
            if group and (number != group[-1] + 1 or packed > room):
                yield group
                group = []
            room = (room if group else _PIECE_BYTES) - packed
            group.append(number)
        if group:
            yield group

    def _odd(self, number: int) -> RefusedError:
        path = f" (`{self._files[number][0].path}`)" if number in self._files else ""
        return self._refused(f"its member {number}{path} is not as `pack` writes it")

    def _refused(self, reason: str) -> RefusedError:
        return RefusedError(self.name, reason)


def _is_short(frame: _Frame) -> bool:
    return frame.packed <= zstd.most_packed(frame.size)

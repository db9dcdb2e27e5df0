"""How carrying is shown: bytes on a line of a terminal, or now and then a line in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import NoReturn, TextIO

from tqdm import tqdm

from ..cache.contents import Contents, Entry
from ..carry.source import Source
from ..text.words import count, megabytes

_QUIET_S = 10.0


class Moving:
    """Bytes that have moved, of those that are known to be on their way."""

    def __init__(self, what: str, out: TextIO | None = None) -> None:
        self._what = what
        self._out = out or sys.stderr
        self._bar: tqdm[NoReturn] | None = None
        self._total = self._moved = 0
        self._said = time.monotonic()

    def expect(self, files: int, size: int) -> None:
        """Say that there is more to do."""
        self._total += size
        if self._out.isatty():
            self._bar = self._bar or tqdm(desc=self._what, file=self._out, total=0, unit="B", unit_scale=True)
            self._bar.total = self._total
            self._bar.refresh()
        else:
            print(f"{self._what}: {count(files, 'file')}, {megabytes(size)}", file=self._out, flush=True)

    def moved(self, size: int) -> None:
        """Count what has moved."""
        self._moved += size
        if self._bar is not None:
            self._bar.update(size)
        elif time.monotonic() - self._said >= _QUIET_S:
            self._said = time.monotonic()
            done = f"{megabytes(self._moved)} of {megabytes(self._total)}"
            print(f"{self._what}: {done}", file=self._out, flush=True)

    def finish(self) -> None:
        """Leave the line as it is."""
        if self._bar is not None:
            self._bar.close()


class Watched:
    """A source that says how much is asked of it. It is a `Source`."""

    def __init__(self, source: Source, moving: Moving) -> None:
        self.name = source.name
        self._source = source
        self._moving = moving

    def contents(self) -> Contents:
        """Return what is there."""
        return self._source.contents()

    def signature(self) -> bytes:
        """Return the bytes of the signature over the list."""
        return self._source.signature()

    def read(self, entries: Sequence[Entry]) -> Iterator[tuple[Entry, bytes]]:
        """Yield the bytes of some files."""
        self._moving.expect(len(entries), sum(entry.size for entry in entries))
        yield from self._source.read(entries)

    def close(self) -> None:
        """Close the source."""
        self._source.close()

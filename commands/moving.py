"""How carrying is shown: bytes on a line of a terminal, or now and then a line in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn, TextIO

from ..cache.contents import Contents, Entry
from ..carry.source import Source
from ..text.words import count, megabytes

if TYPE_CHECKING:  # what most of them end without
    from tqdm import tqdm

_QUIET_S = 10.0
_LARGE_BYTES = 32 << 20
"""What is less is done on this machine before there is something to look at."""


class Moving:
    """Bytes that have moved, of those that are known to be on their way."""

    def __init__(self, what: str, out: TextIO | None = None) -> None:
        self._what = what
        self._out = out or sys.stderr
        self._bar: tqdm[NoReturn] | None = None
        self._files = self._total = self._moved = 0
        self._said = 0.0

    def expect(self, files: int, size: int) -> None:
        """Take note that there is more to do. It is shown when something moves, or by `show`."""
        self._files += files
        self._total += size
        if self._bar is not None:
            self._bar.total = self._total
            self._bar.refresh()

    def show(self) -> None:
        """Say how much there is to do, if nothing was said yet."""
        if self._said:
            return
        self._said = time.monotonic()
        if self._out.isatty():
            from tqdm import tqdm

            self._bar = tqdm(desc=self._what, file=self._out, total=self._total, unit="B", unit_scale=True)
        else:
            self._say(f"{count(self._files, 'file')}, {megabytes(self._total)}")

    def moved(self, size: int) -> None:
        """Count what has moved."""
        self.show()
        self._moved += size
        if self._bar is not None:
            self._bar.update(size)
        elif time.monotonic() - self._said >= _QUIET_S:
            self._said = time.monotonic()
            self._say(f"{megabytes(self._moved)} of {megabytes(self._total)}")

    def finish(self) -> None:
        """Leave the line as it is."""
        if self._bar is not None:
            self._bar.close()

    def _say(self, words: str) -> None:
        print(f"{self._what}: {words}", file=self._out, flush=True)


@contextmanager
def progress(what: str, contents: Contents) -> Iterator[Callable[[int], None]]:
    """Yield a function that is told the bytes of a list that are done here: shown if there is enough to wait for."""
    if contents.size < _LARGE_BYTES:
        yield lambda size: None
        return
    moving = Moving(what)
    moving.expect(len(contents.entries), contents.size)
    try:
        yield moving.moved
    finally:
        moving.finish()


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
        self._moving.show()
        yield from self._source.read(entries)

    def close(self) -> None:
        """Close the source."""
        self._source.close()

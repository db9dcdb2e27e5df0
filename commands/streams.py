"""Standard output and standard error whose reader may go, or whose disk may be full.

`fa4-precompile verify | head -1` must end as `verify` does, and a build goes on without whoever watched it.
"""

from __future__ import annotations

import io
import os
import select
import sys
from typing import Any


def steady_streams() -> None:
    """Put steady streams in the place of this process's standard output and standard error.

    What was closed before we were started is opened, too: the next file that is opened would get its number, and with
    it what somebody prints.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _steady(sys.stdout, 1, "standard output")
    if sys.stderr is sys.__stderr__:
        sys.stderr = _steady(sys.stderr, 2, "")


def _steady(stream: Any, number: int, must_arrive: str) -> Any:
    """Return a steady stream in the place of one; of None, which is Python's word for one that was closed, too."""
    raw = _Steady(number if stream is None else stream.fileno(), must_arrive)
    # What a terminal's encoding does not have (half of a file's name) is printed as an escape, not an error.
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding="utf-8" if stream is None else stream.encoding,
        errors="backslashreplace",
        line_buffering=raw.isatty(),
    )


class _Steady(io.RawIOBase):
    """A descriptor to write to. What can't be written is dropped; if it `must_arrive`, that is an error, once.

    A reader that has gone wants no more, so that is none.
    """

    def __init__(self, descriptor: int, must_arrive: str) -> None:
        self._descriptor = descriptor
        self._must_arrive = must_arrive
        self._is_lost = False

    def write(self, data: Any) -> int:
        """Write what the reader takes."""
        if self._is_lost:
            return len(data)
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:  # whoever shares it has made it so
            select.select([], [self._descriptor], [])
            return 0
        except BrokenPipeError:
            self._is_lost = True
        except OSError as error:
            self._is_lost = True
            if self._must_arrive:
                from ..errors import MachineError  # `--help` is to be quick

                raise MachineError(
                    f"{self._must_arrive} can't be written: {error.strerror}",
                    "what was printed is not all that was found",
                ) from None
        return len(data)

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return os.isatty(self._descriptor)

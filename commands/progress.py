"""How a build is shown: a line on a terminal that is drawn anew, plain lines in a log, or nothing."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import NoReturn, TextIO

from tqdm import tqdm

from ..precompile.engines.choice import host
from ..text.words import count

_SHORTEST_PIECE = 8
_MOST_MACHINES = 4


class BarProgress:
    """A line on standard error: kernels done and failed, time left, and which run. It is as long as there is room."""

    def __init__(self) -> None:
        self._bar: tqdm[NoReturn] | None = None
        self._total = self._done = self._failed = 0
        self._machines: Counter[str] = Counter()
        self._running: Sequence[str] = ()
        self._start = 0.0

    def note(self, message: str) -> None:
        """Print a line above the bar."""
        tqdm.write(message, file=sys.stderr)

    def start(self, total: int, jobs: int) -> None:
        """Show the bar."""
        self._total, self._done, self._failed = total, 0, 0
        self._start = time.monotonic()
        # Rows and columns of our own: on a terminal that says 0, as one in a container can, tqdm would hide the bar or
        # its last letter. How long the line is we see to ourselves.
        self._bar = tqdm(file=sys.stderr, bar_format="{desc}", nrows=20, ncols=sys.maxsize)
        self._show()

    def running(self, labels: Sequence[str]) -> None:
        """Show which kernels run."""
        self._running = labels
        self._show()

    def done(self, label: str, seconds: float, where: str) -> None:
        """Count it, and the machine that did it."""
        self._done += 1
        if where:
            self._machines[host(where)] += 1
        self._show()

    def failed(self, label: str, reason: str) -> None:
        """Say which, and count it."""
        self.note(_failed(label, reason))
        self._done += 1
        self._failed += 1
        self._show()

    def finish(self) -> None:
        """Leave the bar as it is."""
        self.running(())
        if self._bar is not None:
            self._bar.close()

    def _show(self) -> None:
        if self._bar is not None:
            # One column stays free: with a full line some terminals begin the next.
            self._bar.set_description_str(_fitting(self._counts(), self._running, _columns() - 1))

    def _counts(self) -> list[str]:
        """Return what is counted, the most important first."""
        left = tqdm.format_interval(_seconds_left(self._start, self._done, self._total))
        return [
            f"{self._done}/{self._total}",
            *([f"{self._failed} failed"] if self._failed else []),
            *([f"{left} left"] if 0 < self._done < self._total else []),
            *(f"{host} {kernels}" for host, kernels in self._machines.most_common(_MOST_MACHINES)),
            *([count(more, "more machine")] if (more := len(self._machines) - _MOST_MACHINES) > 0 else []),
        ]


def _columns() -> int:
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns  # standard output may be a file
    except (OSError, ValueError):
        columns = 0
    return columns or shutil.get_terminal_size().columns


def _fitting(counts: Sequence[str], running: Sequence[str], room: int) -> str:
    """Return the line with as many counts, and then names, as there is room for, and how many names there are more."""
    line = ""
    for one in counts:
        longer = f"{line}, {one}" if line else one
        if len(longer) > room:
            return line
        line = longer
    for shown in range(len(running), 0, -1):
        more = [f"+{len(running) - shown}"] if shown < len(running) else []
        longer = f"{line}: {'; '.join([*running[:shown], *more])}"
        if len(longer) <= room:
            return longer
    # Not one name fits whole. A piece of less than a word says nothing.
    return f"{longer[: room - 3]}..." if running and room - len(line) > _SHORTEST_PIECE else line


def _seconds_left(start: float, done: int, total: int) -> float:
    return (time.monotonic() - start) / max(done, 1) * (total - done)


class LogProgress:
    """A line a kernel, for logs."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._total = 0
        self._count = 0
        self._start = 0.0

    def note(self, message: str) -> None:
        """Print a line."""
        print(message, file=self._out, flush=True)

    def start(self, total: int, jobs: int) -> None:
        """Say how much there is to do."""
        self._total, self._count = total, 0
        self._start = time.monotonic()
        self.note(f"compiling {count(total, 'kernel')}, {jobs} at a time")

    def running(self, labels: Sequence[str]) -> None:
        """Say nothing: a line a kernel is enough."""

    def done(self, label: str, seconds: float, where: str) -> None:
        """Say which kernel was built, by which worker, and how long is left."""
        self._step(f"built in {seconds:.1f} s{f' by {where}' if where else ''}: {label}")

    def failed(self, label: str, reason: str) -> None:
        """Say which kernel failed."""
        self._step(_failed(label, reason))

    def finish(self) -> None:
        """Say nothing: the summary follows."""

    def _step(self, message: str) -> None:
        self._count += 1
        left = _seconds_left(self._start, self._count, self._total)
        self.note(f"[{self._count}/{self._total}, {left:.0f} s left] {message}")


class NoProgress:
    """Silence."""

    def note(self, message: str) -> None:
        """Say nothing."""

    def start(self, total: int, jobs: int) -> None:
        """Say nothing."""

    def running(self, labels: Sequence[str]) -> None:
        """Say nothing."""

    def done(self, label: str, seconds: float, where: str) -> None:
        """Say nothing."""

    def failed(self, label: str, reason: str) -> None:
        """Say nothing."""

    def finish(self) -> None:
        """Say nothing."""


def shown_progress(quiet: bool) -> BarProgress | LogProgress | NoProgress:
    """Return what shows progress on standard error: a line that is drawn anew on a terminal, else a line a kernel."""
    if quiet:
        return NoProgress()
    return BarProgress() if sys.stderr.isatty() else LogProgress()


def _failed(label: str, reason: str) -> str:
    return f"FAILED: {label}: {reason.splitlines()[0] if reason else 'no reason given'}"

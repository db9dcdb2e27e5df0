"""How a build is shown: a bar on a terminal, plain lines in a log, or nothing."""

from __future__ import annotations

import shutil
import sys
import time
from typing import NoReturn, TextIO

from tqdm import tqdm

from ..text.words import count


class BarProgress:
    """A progress bar on standard error: kernels done, running, time left."""

    def __init__(self) -> None:
        self._bar: tqdm[NoReturn] | None = None
        self._jobs = 0
        self._total = 0

    def note(self, message: str) -> None:
        """Print a line above the bar."""
        tqdm.write(message, file=sys.stderr)

    def start(self, total: int, jobs: int) -> None:
        """Show the bar."""
        self._jobs = jobs
        self._total = total
        # Sizes of our own: a terminal that says 0 rows, as one in a container can, would hide the bar.
        columns = shutil.get_terminal_size().columns
        self._bar = tqdm(total=total, unit="kernel", file=sys.stderr, ncols=columns, nrows=20, smoothing=0)
        self._show()

    def done(self, label: str, seconds: float) -> None:
        """Move the bar."""
        self._step()

    def failed(self, label: str, reason: str) -> None:
        """Say which, and move the bar."""
        self.note(_failed(label, reason))
        self._step()

    def finish(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()

    def _step(self) -> None:
        if self._bar is not None:
            self._bar.update()
            self._show()

    def _show(self) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(f"{min(self._total - self._bar.n, self._jobs)} running")


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
        self._total = total
        self._start = time.monotonic()
        self.note(f"compiling {count(total, 'kernel')}, {jobs} at a time")

    def done(self, label: str, seconds: float) -> None:
        """Say which kernel was built, and how long is left."""
        self._step(f"built in {seconds:.1f} s: {label}")

    def failed(self, label: str, reason: str) -> None:
        """Say which kernel failed."""
        self._step(_failed(label, reason))

    def finish(self) -> None:
        """Say nothing: the summary follows."""

    def _step(self, message: str) -> None:
        self._count += 1
        left = (time.monotonic() - self._start) / self._count * (self._total - self._count)
        self.note(f"[{self._count}/{self._total}, {left:.0f} s left] {message}")


class NoProgress:
    """Silence."""

    def note(self, message: str) -> None:
        """Say nothing."""

    def start(self, total: int, jobs: int) -> None:
        """Say nothing."""

    def done(self, label: str, seconds: float) -> None:
        """Say nothing."""

    def failed(self, label: str, reason: str) -> None:
        """Say nothing."""

    def finish(self) -> None:
        """Say nothing."""


def _failed(label: str, reason: str) -> str:
    return f"FAILED: {label}: {reason.splitlines()[0] if reason else 'no reason given'}"

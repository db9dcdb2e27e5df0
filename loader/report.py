"""Telling what happened in a process: a sentence, a line of a file that all append to, or a file of the process's own.

Why there are two kinds of files, and which of them outlives a signal: docs/decisions/0037.
"""

from __future__ import annotations

import functools
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path

from .ending import when_process_ends
from .line import Line, ServedRoot
from .ranks import placement
from .report_files import file_of, is_for_each
from .stats import Counts, say
from .voice import is_heard

_PAUSE_S = 1.0
"""How long after something has happened a process's own file tells it, at most: what else happens is told with it."""

Roots = Callable[[bool], Sequence[ServedRoot]]
"""Returns where kernels are looked for; with True it may take its time and find out what is in there."""


def no_roots(_thorough: bool) -> Sequence[ServedRoot]:
    """Return none."""
    return ()


class Reporter:
    """Tells what one process did, as long as that is the process that it was made in.

    Concurrency
        Any thread can change the counts. A forked child tells nothing of its parent's.
    """

    def __init__(self, counts: Counts, on_miss: str, roots: Roots) -> None:
        self._counts = counts
        self._on_miss = on_miss
        self._roots = roots
        self._process = os.getpid()

    @property
    def is_due(self) -> bool:
        """Whether there is something to tell, and this process is the one to tell it."""
        return os.getpid() == self._process and self._counts.is_worth_telling

    def sum_up(self) -> None:
        """Say it in a sentence, if this process speaks for its job."""
        if self.is_due and is_heard():
            say(f"{self._counts.stats()} (process {self._process})")

    def append(self, file: Path) -> None:
        """Append it to a file, as a line."""
        if not self.is_due:
            return
        try:
            # One write of one line: the ranks of a job append to one file. O_NONBLOCK: a FIFO that nobody reads must
            # not keep the job from its end.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(file, flags, 0o644)
            try:
                os.write(descriptor, self.line(ended=True, thorough=True))
            finally:
                os.close(descriptor)
        except OSError as error:
            say(f"can't write `{file}`: {error.strerror}; {self._counts.stats()}")

    def line(self, ended: bool, thorough: bool) -> bytes:
        """Return what happened so far, as a line of JSON."""
        counts = self._counts
        line = Line(
            process=self._process,
            placement=placement(),
            started=_shown(counts.started),
            time=_shown(datetime.now(timezone.utc)),
            ended=ended,
            on_miss=self._on_miss,
            stats=counts.stats(),
            roots=self._roots(thorough),
            toolchains=counts.toolchains(),
            first_lookup_seconds=counts.first_lookup_seconds,
            misses=counts.misses(),
            slowest=counts.slowest(),
            kernels=counts.kernels(),
        )
        return _encoded(line) + b"\n"


class OwnFile:
    """The file of one process, which always has its last line.

    Guarantees
        Whoever reads it finds one whole line or none. From `open` on the process is heard of. What happens is in the
        file a second later, however the process ends then.
    Concurrency
        A change is noted by its thread, which waits for nothing; another one writes, and ends. There is one lock, for
        who writes; a forked child never comes to it.
    """

    def __init__(self, reporter: Reporter, counts: Counts, path: Path) -> None:
        self._reporter = reporter
        self._counts = counts
        self._pattern = path
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._file: Path | None = None
        self._is_coming = False
        self._is_over = False
        self._has_complained = False

    def open(self) -> None:
        """Write the first line, and take note of changes from now on."""
        self._write(ended=False, thorough=False)
        self._counts.changed = self._changed
        self._changed()

    def close(self) -> None:
        """Write the last line; take the file away if there is nothing to tell."""
        if os.getpid() != self._process or self._is_over:
            return
        if self._reporter.is_due:
            self._write(ended=True, thorough=True)
            return
        with self._lock:
            self._is_over = True
            if self._file is not None:
                try:
                    self._file.unlink()
                except OSError:  # gone already
                    pass

    def _changed(self) -> None:
        if os.getpid() != self._process or self._is_over:
            return
        if self._counts.is_closed:  # another loader's line comes here
            self.close()
        elif not self._is_coming:
            self._is_coming = True
            try:
                threading.Thread(target=self._write_soon, name="fa4-precompile-report", daemon=True).start()
            except RuntimeError:  # no thread is left, or the process ends, which is told then
                self._is_coming = False

    def _write_soon(self) -> None:
        time.sleep(_PAUSE_S)
        self._is_coming = False  # before what is told is read: what changes now is told by the next
        self._write(ended=False, thorough=True)

    def _write(self, ended: bool, thorough: bool) -> None:
        with self._lock:
            if self._is_over:
                return
            self._is_over = ended
            try:
                if self._file is None:
                    self._file = file_of(self._pattern, placement(), self._process)
                    self._file.parent.mkdir(parents=True, exist_ok=True)
                _replace(self._file, self._reporter.line(ended, thorough))
            except OSError as error:
                self._complain(error, ended)

    def _complain(self, error: OSError, ended: bool) -> None:
        if ended or not self._has_complained:
            told = f"; {self._counts.stats()}" if ended else ""
            say(f"can't write `{self._file or self._pattern}`: {error.strerror}{told}")
        self._has_complained = True


def report_at_exit(counts: Counts, file: Path | None, on_miss: str = "warn", roots: Roots = no_roots) -> None:
    """Tell what happens in this process: a sentence on standard error when it ends, or a line of JSON in a file.

    A shared file gets its line when the process ends; a file of the process's own has one from now on. A child that is
    forked from it says nothing of its parent's.
    """
    reporter = Reporter(counts, on_miss, roots)
    if file is None:
        tell = reporter.sum_up
    elif is_for_each(file):
        counts.tells_calls = True
        own = OwnFile(reporter, counts, file)
        own.open()
        tell = own.close
    else:
        counts.tells_calls = True
        tell = functools.partial(reporter.append, file)
    when_process_ends(tell)


def _replace(file: Path, data: bytes) -> None:
    """Put data into a file, whole. Not fsynced: what a crash of the machine loses, its scheduler knows."""
    temporary = file.with_name(f".{file.name}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o644)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]
    finally:
        os.close(descriptor)
    os.replace(temporary, file)


def _encoded(line: Line) -> bytes:
    """Return a line as JSON that any reader takes: a path of odd bytes brings half a character."""
    text = json.dumps(line.render(), default=str)
    if "\\ud" in text:
        whole = json.dumps(line.render(), default=str, ensure_ascii=False).encode(errors="replace")
        text = json.dumps(json.loads(whole))
    return text.encode()


def _shown(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

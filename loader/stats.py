"""What the loader did in a process: counted as it happens, told on demand and when the process ends."""

from __future__ import annotations

import atexit
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..cache.key import KernelId
from ..cache.origin import Origin
from .kernel import Kernel, Opened
from .voice import is_heard
from .wanted import KERNELS


@dataclass(frozen=True)
class Stats:
    """What happened so far in this process.

    Attributes:
        resolved: kernels that came from the cache, one for each key that was looked up.
        preloaded: kernels that were loaded before they were looked up.
        missed: keys that the cache had no kernel for, by `MissReason`.
        compiled: kernels that were compiled in this process instead.
        stored: of these, published to a root.
        refused: compiles that strict mode forbade.
        load_seconds: what the process waited for resolved and preloaded kernels, in all; not what a thread does
            meanwhile.
        compile_seconds: what the compiled ones took.
        saved_seconds: what the resolved kernels took to compile when they were built, as far as their cache knows.
        inexact: how many of the resolved kernels were built by another toolchain than is installed, by what differs.
    """

    resolved: int
    preloaded: int
    missed: Mapping[str, int]
    compiled: int
    stored: int
    refused: int
    load_seconds: float
    compile_seconds: float
    saved_seconds: float
    inexact: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the summary as a sentence."""
        missed = ", ".join(f"{number} {reason}" for reason, number in self.missed.items())
        parts = [
            f"{self.resolved} kernels resolved{f' and {self.preloaded} preloaded' if self.preloaded else ''}"
            f" in {self.load_seconds * 1e3:.1f} ms",
            f"{sum(self.missed.values())} missed{f' ({missed})' if missed else ''}",
            f"{self.compiled} compiled" + (f" in {self.compile_seconds:.1f} s" if self.compiled else ""),
            *([f"{self.stored} stored"] if self.stored else []),
            *([f"{self.refused} compiles refused"] if self.refused else []),
            *([f"{self.saved_seconds:.1f} s of compiling saved"] if self.saved_seconds else []),
            *(f"{number} built by another toolchain ({what})" for what, number in self.inexact.items()),
        ]
        return ", ".join(parts)


class Counts:
    """Takes note of what happens. Appending is all it does, which threads can do at once."""

    def __init__(self) -> None:
        self._resolved: list[Kernel] = []
        self._preloaded: list[Kernel | Opened] = []
        self._missed: list[str] = []
        self._compiled: list[float] = []
        self._stored: list[str] = []
        self._refused: list[str] = []
        self._seconds: dict[KernelId, float] = {}
        self._inexact: list[Mapping[str, str]] = []
        self._is_closed = False

    def learn(self, inexact: Mapping[str, str]) -> None:
        """Take note of where it is written what differs in toolchains, by id; it is read when it is told."""
        self._inexact.append(inexact)

    def resolved(self, kernel: Kernel) -> None:
        """Count a key that was found."""
        self._resolved.append(kernel)

    def preloaded(self, kernel: Kernel | Opened) -> None:
        """Count a kernel that was loaded before it was needed."""
        self._preloaded.append(kernel)

    def missed(self, reason: str) -> None:
        """Count a key that was not found."""
        self._missed.append(reason)

    def compiled(self, seconds: float) -> None:
        """Count a kernel that this process compiled."""
        self._compiled.append(seconds)

    def stored(self, kernel: str) -> None:
        """Count a kernel that this process published."""
        self._stored.append(kernel)

    def refused(self, function: str) -> None:
        """Count a compile that strict mode forbade."""
        self._refused.append(function)

    def close(self) -> None:
        """End counting: the loader was stopped, or another one took its place."""
        self._is_closed = True

    @property
    def is_worth_telling(self) -> bool:
        """Whether anything happened, or still can."""
        noted = (self._resolved, self._preloaded, self._missed, self._compiled, self._stored, self._refused)
        return not self._is_closed or any(noted)

    def kernels(self) -> list[KernelId]:
        """Return the kernels that were resolved, each once."""
        return list(dict.fromkeys(kernel.reference.id for kernel in self._resolved))

    def stats(self) -> Stats:
        """Return what happened so far."""
        # Nobody waits for what is loaded in the background, and what a lookup finds loaded takes it next to nothing.
        waited_for = [*(kernel for kernel in self._preloaded if isinstance(kernel, Kernel)), *self._resolved]
        loaded = {kernel.reference.id: kernel for kernel in waited_for}
        return Stats(
            resolved=len(self._resolved),
            preloaded=len(self._preloaded),
            missed=dict(Counter(self._missed)),
            compiled=len(self._compiled),
            stored=len(self._stored),
            refused=len(self._refused),
            load_seconds=sum(kernel.load_seconds for kernel in loaded.values()),
            compile_seconds=sum(self._compiled),
            saved_seconds=sum(map(self._saved, self._resolved)),
            inexact=dict(Counter(self._differences())),
        )

    def _differences(self) -> Iterator[str]:
        """Yield what differs in the toolchain of each resolved kernel that another one than is installed built."""
        known: dict[str, str] = {}
        for inexact in self._inexact:
            known.update(inexact)  # at once: a thread may be writing there
        for kernel in self._resolved:
            if words := known.get(kernel.reference.toolchain):
                yield words

    def _saved(self, kernel: Kernel) -> float:
        """Return what compiling a kernel took when it was built; zero if that is not known. Read once, on demand."""
        identity = kernel.reference.id
        if identity not in self._seconds:
            origin = kernel.origin()
            self._seconds[identity] = (origin.compile_seconds or 0.0) if isinstance(origin, Origin) else 0.0
        return self._seconds[identity]


def report_at_exit(counts: Counts, file: Path | None) -> None:
    """Tell what happened when this process ends: a sentence on standard error, or a line of JSON that is appended.

    A child that is forked from it says nothing of its parent's.
    """
    process = os.getpid()

    def report() -> None:
        if os.getpid() == process and counts.is_worth_telling:
            _report(counts, file)

    multiprocessing = sys.modules.get("multiprocessing.util")
    parent = sys.modules.get("multiprocessing.process")
    if multiprocessing and parent and parent.parent_process() is not None:
        # Python's own children (torch.multiprocessing.spawn) leave without `atexit`.
        multiprocessing.Finalize(None, report, exitpriority=0)
    else:
        atexit.register(report)


def _report(counts: Counts, file: Path | None) -> None:
    stats = counts.stats()
    if file is None:
        if is_heard():
            say(f"{stats} (process {os.getpid()})")
        return
    line = json.dumps({"process": os.getpid(), **asdict(stats), KERNELS: counts.kernels()}) + "\n"
    try:
        # One write of one line: the ranks of a job append to one file. O_NONBLOCK: a FIFO that nobody reads must not
        # keep the job from its end.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(file, flags, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        say(f"can't write `{file}`: {error.strerror}; {stats}")


def say(message: str) -> None:
    """Tell the person at the terminal something that no logger may swallow. Never raises: nobody may be there."""
    line, stream = f"fa4-precompile: {message}\n", sys.stderr
    try:
        if stream is not None and stream is not sys.__stderr__:
            stream.write(line)
        elif sys.__stderr__ is not None:  # a process can be started without one
            sys.__stderr__.flush()
            # Past its buffer: what stays in there fails once more when the process ends, and is its exit code then.
            os.write(sys.__stderr__.fileno(), line.encode(errors="backslashreplace"))
    except Exception:  # also of whatever a job has put in the stream's place
        pass

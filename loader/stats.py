"""What the loader did in a process: counted as it happens, told on demand. `report.py` tells it to who asks for it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone

from ..cache.key import KernelId
from ..cache.origin import Origin
from .kernel import Kernel, Opened

_MOST_MISSES = 200  # kinds of calls; a job that has more of them has one problem
_MOST_SLOW = 5


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
            f"{self.resolved} kernel{'' if self.resolved == 1 else 's'} resolved"
            f"{f' and {self.preloaded} preloaded' if self.preloaded else ''} in {self.load_seconds * 1e3:.1f} ms",
            f"{sum(self.missed.values())} missed{f' ({missed})' if missed else ''}",
            f"{self.compiled} compiled" + (f" in {self.compile_seconds:.1f} s" if self.compiled else ""),
            *([f"{self.stored} stored"] if self.stored else []),
            *([f"{self.refused} compiles refused"] if self.refused else []),
            *([f"{self.saved_seconds:.1f} s of compiling saved"] if self.saved_seconds else []),
            *(f"{number} built by another toolchain ({what})" for what, number in self.inexact.items()),
        ]
        return ", ".join(parts)


@dataclass(frozen=True)
class Missed:
    """A call that the cache had no kernel for.

    Attributes:
        slot: the provider's compile cache that was asked.
        reason: a `MissReason`'s value.
        arch: the compile target of the process's GPU; empty if that is not known.
        call: the axes of the call; None if it can't be told.
        detail: why there is no kernel, a sentence.
        count: how often it was looked up.
    """

    slot: str
    reason: str
    arch: str = ""
    call: Mapping[str, object] | None = None
    detail: str = ""
    count: int = 1


@dataclass(frozen=True)
class Slow:
    """A kernel, its slot, and how long the process waited for it."""

    kernel: str
    slot: str
    seconds: float


def _nobody() -> None:
    """Take no note."""


class Counts:
    """Takes note of what happens. Appending is all it does, which threads can do at once.

    Attributes:
        started: when counting began: the loader was made.
        changed: called after each of these notes; none of them is made in a call whose kernel is known.
        tells_calls: whether somebody wants to know which calls were missed.
    """

    def __init__(self) -> None:
        self.changed: Callable[[], None] = _nobody
        self.tells_calls = False
        self.started = datetime.now(timezone.utc)
        self._start = time.monotonic()
        self._first_lookup: float | None = None
        self._calls: dict[str, tuple[Missed, list[None]]] = {}
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
        self._looked_up()

    def preloaded(self, kernel: Kernel | Opened) -> None:
        """Count a kernel that was loaded before it was needed."""
        self._preloaded.append(kernel)
        self.changed()

    def missed(self, reason: str, call: Missed | None = None) -> None:
        """Count a key that was not found, of a call if that is told."""
        self._missed.append(reason)
        if call is not None:
            name = json.dumps([call.slot, call.reason, call.arch, call.call], default=str)
            if name in self._calls or len(self._calls) < _MOST_MISSES:
                self._calls.setdefault(name, (call, []))[1].append(None)
        self._looked_up()

    def compiled(self, seconds: float) -> None:
        """Count a kernel that this process compiled."""
        self._compiled.append(seconds)
        self.changed()

    def stored(self, kernel: str) -> None:
        """Count a kernel that this process published."""
        self._stored.append(kernel)
        self.changed()

    def refused(self, function: str) -> None:
        """Count a compile that strict mode forbade."""
        self._refused.append(function)
        self.changed()

    def close(self) -> None:
        """End counting: the loader was stopped, or another one took its place."""
        self._is_closed = True
        self.changed()

    @property
    def is_closed(self) -> bool:
        """Whether that has been said."""
        return self._is_closed

    @property
    def is_worth_telling(self) -> bool:
        """Whether anything happened, or still can."""
        noted = (self._resolved, self._preloaded, self._missed, self._compiled, self._stored, self._refused)
        return not self._is_closed or any(noted)

    def kernels(self) -> list[KernelId]:
        """Return the kernels that were resolved, each once."""
        return list(dict.fromkeys(kernel.reference.id for kernel in self._resolved))

    def toolchains(self) -> list[str]:
        """Return the ids of the toolchains that built these, each once."""
        return list(dict.fromkeys(kernel.reference.toolchain for kernel in self._resolved))

    def misses(self) -> list[Missed]:
        """Return the calls that were missed, each once, as far as they were told: the first two hundred."""
        return [replace(call, count=len(times)) for call, times in list(self._calls.values())]

    def slowest(self) -> list[Slow]:
        """Return the kernels that the process waited longest for, the slowest first."""
        slow = {
            kernel.reference.id: Slow(kernel.reference.id, kernel.reference.slot, kernel.load_seconds)
            for kernel in self._waited_for()
        }
        return sorted(slow.values(), key=lambda one: (-one.seconds, one.kernel))[:_MOST_SLOW]

    @property
    def first_lookup_seconds(self) -> float | None:
        """How long after `started` the first key was looked up; None if none was."""
        return None if self._first_lookup is None else self._first_lookup - self._start

    def stats(self) -> Stats:
        """Return what happened so far."""
        loaded = {kernel.reference.id: kernel for kernel in self._waited_for()}
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

    def _looked_up(self) -> None:
        if self._first_lookup is None:
            self._first_lookup = time.monotonic()
        self.changed()

    def _waited_for(self) -> Sequence[Kernel]:
        """Return what the process waited for: nobody waits for what is loaded in the background.

        What a lookup finds loaded takes it next to nothing.
        """
        return [*(kernel for kernel in self._preloaded if isinstance(kernel, Kernel)), *self._resolved]

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

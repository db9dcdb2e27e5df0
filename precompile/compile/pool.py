"""The pool: a `concurrent.futures.Executor` whose workers are forked from one process that has done the imports.

Another engine, such as a build farm's, can stand in for it: `build.py` and `plan.py` know `Executor.submit` only.
"""

from __future__ import annotations

import collections
import fnmatch
import os
import queue
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any, TypeVar

from ...errors import Fa4PrecompileError, MachineError
from . import forkserver
from .forkserver import Failed, Ready, Returned, Task

T = TypeVar("T")

# A compiling child, with torch, the DSL and FA4 imported, peaks at 0.63 GB for the quickstart's kernels
# (benchmarks/build_scaling.py prints it); the rest is room for larger ones.
MEMORY_PER_JOB = 1_500_000_000


@dataclass(eq=False)
class TaskFailed(Fa4PrecompileError):
    """A task raised, its worker died, or its time ran out."""

    reason: str
    report: str

    def __str__(self) -> str:
        return f"{self.reason}\n{self.report}".strip()


class ForkServerPool(Executor):
    """Run each task in a child of its own, forked from a process that has called `initializer`.

    Args:
        max_workers: children at one time.
        initializer, arguments: called once, in the fork server; it does the imports.
        environment: variables of the fork server, on top of this process's; a None value unsets one, or all that begin
            so if the name ends in `*`.
        time_limits: seconds that a task may take, by its function; others take what they take.

    Raises (from `submit` and from futures) `MachineError` if the initializer fails, and what it raised if that was an
    error of this package. A future raises `TaskFailed` if its task raised or its worker died.
    """

    def __init__(
        self,
        max_workers: int,
        initializer: Callable[..., None],
        arguments: tuple[Any, ...] = (),
        environment: Mapping[str, str | None] | None = None,
        time_limits: Mapping[Callable[..., Any], float] | None = None,
    ) -> None:
        self._free = max_workers
        self._time_limits = dict(time_limits or {})
        self._waiting: collections.deque[tuple[Task, Future[Any]]] = collections.deque()
        self._running: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()
        self._numbers = 0
        self._closed = False
        self._output = tempfile.TemporaryFile()
        self._server, self._connection = _start_server(environment or {}, self._output)
        self._reader = threading.Thread(target=self._read, name="fork-server-pool", daemon=True)
        self._writer = threading.Thread(target=self._write, name="fork-server-pool-writer", daemon=True)
        self._outbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._ready = False
        self._broken: Fa4PrecompileError | None = None
        self._outbox.put((initializer, arguments))
        self._reader.start()
        self._writer.start()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run `fn(*args)` in a child. Both must be picklable; keyword arguments are not taken."""
        if kwargs:
            raise TypeError("ForkServerPool takes positional arguments only")
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("the pool is shut down")
            if self._broken is not None:
                future.set_exception(self._broken)
                return future
            self._numbers += 1
            self._waiting.append((Task(self._numbers, fn, args, self._time_limits.get(fn)), future))
            self._dispatch()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the pool. Children that still run are killed unless `wait` is true and nothing is cancelled."""
        with self._lock:
            self._closed = True
            running = list(self._running.values())
            waiting = [future for _, future in self._waiting]
        if wait and not cancel_futures:
            for future in (*running, *waiting):
                future.exception()
        if not self._ready:
            self._server.kill()  # it is importing, and deaf for seconds; it has no children yet
        self._outbox.put(None)
        self._connection_shutdown()
        self._server.wait()
        self._reader.join()
        self._writer.join()
        self._output.close()

    def _connection_shutdown(self) -> None:
        # The server sees the end of its input, kills its children and ends; our reader sees its end.
        duplicate = socket.socket(fileno=os.dup(self._connection.fileno()))
        with duplicate:
            try:
                duplicate.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _dispatch(self) -> None:
        while self._ready and self._free and self._waiting:
            task, future = self._waiting.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            self._free -= 1
            self._running[task.number] = future
            self._outbox.put(task)

    def _write(self) -> None:
        # A thread of its own: the server may be busy with sending us an answer, which the reader must be free to take.
        while (message := self._outbox.get()) is not None:
            try:
                self._connection.send(message)
            except OSError:  # the reader finds out why
                return

    def _read(self) -> None:
        broken: Fa4PrecompileError
        try:
            first = self._connection.recv()
            if isinstance(first, Ready):
                self._serve()
            error, report = first
            broken = error or MachineError(f"the compiler could not be started:\n{report.rstrip()}", _DOCTOR)
        except (EOFError, OSError):
            code = self._server.wait()
            self._output.seek(0)
            output = self._output.read().decode(errors="replace").strip()[-2000:]
            broken = MachineError(f"the fork server ended with exit code {code}\n{output}".rstrip(), _DOCTOR)
        except Exception as error:  # an answer that can't be read: nobody may wait for it
            broken = MachineError(f"the fork server's answer can't be read: {error!r}", _DOCTOR)
        with self._lock:
            self._broken = broken
            futures = [*self._running.values(), *(future for _, future in self._waiting)]
            self._running.clear()
            self._waiting.clear()
        for future in futures:
            if not future.done() and not future.cancelled():
                future.set_exception(broken)

    def _serve(self) -> None:
        with self._lock:
            self._ready = True
            self._dispatch()
        while True:
            answer = self._connection.recv()
            with self._lock:
                future = self._running.pop(answer.number)
                self._free += 1
                self._dispatch()
            if isinstance(answer, Returned):
                future.set_result(answer.value)
            elif isinstance(answer, Failed):
                future.set_exception(TaskFailed(answer.reason, answer.report))


# Not `-m`, which would make its message classes those of `__main__`; and nothing of the working folder gets imported.
_START = (
    f"import sys; sys.path = [p for p in sys.path if p]; from {forkserver.__name__} import main; main(int(sys.argv[1]))"
)
_DOCTOR = "`fa4-precompile doctor` says what is missing"


def _start_server(
    environment: Mapping[str, str | None], output: IO[bytes]
) -> tuple[subprocess.Popen[bytes], Connection]:
    variables = dict(os.environ)
    for pattern in [name for name, value in environment.items() if value is None]:
        for name in fnmatch.filter(variables, pattern):
            del variables[name]
    variables.update({name: value for name, value in environment.items() if value is not None})
    ours, theirs = socket.socketpair()
    with theirs:
        server = subprocess.Popen(
            [sys.executable, "-c", _START, str(theirs.fileno())],
            env=variables,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is ours to handle
        )
    return server, Connection(ours.detach())


def default_jobs() -> int:
    """Return how many kernels to compile at once: what the cores and the free memory allow, at least 1."""
    return max(1, min(_cores(), _free_memory() // MEMORY_PER_JOB))


def _cores() -> int:
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, int(quota) // int(period))) if quota != "max" else cores
    except (OSError, ValueError):
        return cores


def _free_memory() -> int:
    with open("/proc/meminfo") as file:
        fields = dict(line.split(":", 1) for line in file)
    free = int(fields["MemAvailable"].split()[0]) * 1024
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        statistics = dict(line.split() for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines())
        cached = int(statistics["inactive_file"]) + int(statistics["active_file"])  # given back when it is needed
        return free if limit == "max" else min(free, int(limit) - used + cached)
    except (OSError, ValueError, KeyError):
        return free

"""The pool: a `concurrent.futures.Executor` whose workers are forked from one process that has done the imports.

Another engine, such as a build farm's, can stand in for it: `build.py` and `plan.py` know `Executor.submit` only.
"""

from __future__ import annotations

import atexit
import collections
import concurrent.futures
import fnmatch
import logging
import os
import pickle
import queue
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any, TypeVar

from ...errors import Fa4PrecompileError, MachineError
from . import forkserver
from .forkserver import Failed, Learner, Ready, Returned, Task
from .machine import cores, free_memory

T = TypeVar("T")

_LOG = logging.getLogger("fa4_precompile")

# A compiling child, with torch, the DSL and FA4 imported, peaks at 0.63 GB for the quickstart's kernels
# (benchmarks/build_scaling.py prints it); the rest is room for larger ones.
MEMORY_PER_JOB = 1_500_000_000

# At the end of a process; a second is enough where nothing hangs.
_MOST_SECONDS_TO_END = 10.0


@dataclass(eq=False)
class TaskFailed(Fa4PrecompileError):
    """A task raised, its worker died, or its time ran out."""

    reason: str
    report: str

    def __str__(self) -> str:
        return f"{self.reason}\n{self.report}".strip()


@dataclass(frozen=True)
class _Order:
    """A task that is not pickled yet, and who waits for it."""

    number: int
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    future: Future[Any]


class ForkServerPool(Executor):
    """Run each task in a child of its own, forked from a process that has called `initializer`.

    The process is started by `start` or by the first `submit`. Threads of the pool own all that there is to leave
    behind, so that what a signal's handler raises in the caller's thread leaves nothing.

    Args:
        max_workers: children at one time.
        initializer, arguments: called once, in the fork server; it does the imports, and may return what learns more.
        environment: variables of the fork server, on top of this process's; a None value unsets one, or all that begin
            so if the name ends in `*`.
        time_limits: seconds that a task may take, by its function; others take what they take.

    Futures raise `MachineError` if the initializer fails, or what it raised if that was an error of this package; and
    `TaskFailed` if their task raised, its worker died, or the task or its answer can't be sent.
    """

    def __init__(
        self,
        max_workers: int,
        initializer: Callable[..., Learner | None],
        arguments: tuple[Any, ...] = (),
        environment: Mapping[str, str | None] | None = None,
        time_limits: Mapping[Callable[..., Any], float] | None = None,
    ) -> None:
        self._free = max_workers
        self._initializer = (initializer, arguments)
        self._environment = environment or {}
        self._time_limits = dict(time_limits or {})
        self._waiting: collections.deque[_Order] = collections.deque()
        self._running: dict[int, Future[Any]] = {}
        self._outbox: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._numbers = 0
        self._ready = self._closed = self._ending = False
        self._broken: Fa4PrecompileError | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._process = os.getpid()
        # Not `Thread.join`, which up to Python 3.12 takes a thread for dead once a signal has interrupted it.
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fork-server-pool", daemon=True)

    def start(self) -> None:
        """Start the fork server, if it was not yet; returns before it is ready."""
        with self._lock:
            if self._thread.ident is None and not self._closed:
                atexit.register(self._end_with_the_process)
                self._thread.start()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run `fn(*args)` in a child. Both must be picklable; keyword arguments are not taken."""
        if kwargs:
            raise TypeError("ForkServerPool takes positional arguments only")
        self.start()
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("the pool is shut down")
            if self._broken is not None:
                future.set_exception(self._broken)
                return future
            self._numbers += 1
            self._waiting.append(_Order(self._numbers, fn, args, future))
            self._dispatch()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the pool. Children that still run are killed unless `wait` is true and nothing is cancelled."""
        try:
            with self._lock:
                self._closed = True
                futures = [*self._running.values(), *(order.future for order in self._waiting)]
            if wait and not cancel_futures:
                concurrent.futures.wait(futures)
        finally:
            with self._lock:
                self._end()
        if self._thread.ident is not None:
            self._ended.wait()
            atexit.unregister(self._end_with_the_process)

    def _end_with_the_process(self) -> None:
        """Do what an impatient person's second Ctrl-C has kept `shutdown` from. A forked child has nothing to end."""
        if self._process == os.getpid():
            self._end()
            self._ended.wait(_MOST_SECONDS_TO_END)

    def _end(self) -> None:
        self._ending = True
        if self._server is not None and self._socket is not None:
            if not self._ready:
                self._server.kill()  # it is importing, and deaf for seconds; it has no children yet
            # The server sees the end of its input, kills its children and ends; our reader sees its end.
            _hang_up(self._socket)

    def _dispatch(self) -> None:
        while self._ready and self._free and self._waiting:
            order = self._waiting.popleft()
            if not order.future.set_running_or_notify_cancel():
                continue
            self._free -= 1
            self._running[order.number] = order.future
            self._outbox.put(order)

    # What runs in the pool's threads

    def _run(self) -> None:
        try:
            # The server makes it: were this process killed between making it and starting one, nobody would remove it.
            folder = Path(tempfile.gettempdir(), f"fa4-precompile-{secrets.token_hex(8)}")
            try:
                broken = self._serve(folder)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        except BaseException as error:  # whatever it is, nobody may wait for ever
            broken = MachineError(f"the fork server could not be started: {type(error).__name__}: {error}", _DOCTOR)
        with self._lock:
            self._broken = broken
            running, waiting = list(self._running.values()), list(self._waiting)
            self._running.clear()
            self._waiting.clear()
        self._ended.set()
        for future in (*running, *(order.future for order in waiting if order.future.set_running_or_notify_cancel())):
            future.set_exception(broken)

    def _serve(self, folder: Path) -> Fa4PrecompileError:
        """Run a fork server to its end, and return why there is none any more."""
        beginning = pickle.dumps(self._initializer)
        with tempfile.TemporaryFile() as output:
            server, ours = _start_server(self._environment, folder, output)
            with ours, Connection(os.dup(ours.fileno())) as connection:
                writer = threading.Thread(
                    target=self._write, args=(connection, beginning), name="fork-server-pool-writer", daemon=True
                )
                writer.start()
                with self._lock:
                    self._server, self._socket = server, ours
                    if self._ending:
                        self._end()
                try:
                    return self._read(connection)
                except (EOFError, OSError):
                    code = server.wait()
                    output.seek(0)
                    words = output.read().decode(errors="replace").strip()[-2000:]
                    return MachineError(f"the fork server ended with exit code {code}\n{words}".rstrip(), _DOCTOR)
                except BaseException as error:  # an answer that can't be read: nobody may wait for it
                    return MachineError(f"the fork server's answer can't be read: {error!r}", _DOCTOR)
                finally:
                    _hang_up(ours)
                    server.wait()
                    self._outbox.put(None)
                    writer.join()

    def _write(self, connection: Connection, beginning: bytes) -> None:
        # A thread of its own: the server may be busy with sending us an answer, which the reader must be free to take.
        try:
            connection.send_bytes(beginning)
            for order in iter(self._outbox.get, None):
                try:
                    call = pickle.dumps((order.function, order.arguments))
                except BaseException as error:
                    self._take(order.number).set_exception(_failure("the task can't be sent to a worker", error))
                else:
                    connection.send(Task(order.number, call, self._time_limits.get(order.function)))
                del order  # with its future, and what that comes to hold
        except OSError:  # the reader finds out why
            return

    def _read(self, connection: Connection) -> Fa4PrecompileError:
        first = connection.recv()
        if not isinstance(first, Ready):
            error, report = first
            return error or MachineError(f"the compiler could not be started:\n{report.rstrip()}", _DOCTOR)
        for warning in first.warnings:
            _LOG.warning("%s", warning)
        with self._lock:
            self._ready = True
            self._dispatch()
        while True:
            self._deliver(connection.recv())

    def _deliver(self, answer: Returned | Failed) -> None:
        future = self._take(answer.number)
        if isinstance(answer, Failed):
            future.set_exception(TaskFailed(answer.reason, answer.report))
            return
        try:
            value = pickle.loads(answer.value)
        except BaseException as error:
            future.set_exception(_failure("the worker's answer can't be read", error))
        else:
            future.set_result(value)

    def _take(self, number: int) -> Future[Any]:
        """Return the future of a task that is done with, whose place another can have."""
        with self._lock:
            future = self._running.pop(number)
            self._free += 1
            self._dispatch()
        return future


def _failure(what: str, error: BaseException) -> TaskFailed:
    return TaskFailed(f"{what}: {type(error).__name__}: {error}", traceback.format_exc())


def _hang_up(connected: socket.socket) -> None:
    try:
        connected.shutdown(socket.SHUT_RDWR)
    except OSError:  # it is over already
        pass


# Not `-m`, which would make its message classes those of `__main__`; and nothing of the working folder gets imported.
_START = (
    f"import sys; sys.path = [p for p in sys.path if p]; from {forkserver.__name__} import main; "
    "main(int(sys.argv[1]), sys.argv[2])"
)
_DOCTOR = "`fa4-precompile doctor` says what is missing"


def _start_server(
    environment: Mapping[str, str | None], folder: Path, output: IO[bytes]
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a fork server whose temporary files, and those of all that it runs, are in a folder of its own."""
    variables = {**os.environ, "TMPDIR": str(folder)}
    for pattern in [name for name, value in environment.items() if value is None]:
        for name in fnmatch.filter(variables, pattern):
            del variables[name]
    variables.update({name: value for name, value in environment.items() if value is not None})
    ours, theirs = socket.socketpair()
    with theirs:
        server = subprocess.Popen(
            [sys.executable, "-c", _START, str(theirs.fileno()), str(folder)],
            env=variables,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is ours to handle
        )
    return server, ours


def default_jobs() -> int:
    """Return how many kernels to compile at once: what the cores and the free memory allow, at least 1."""
    return max(1, min(cores(), free_memory() // MEMORY_PER_JOB))

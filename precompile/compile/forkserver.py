"""The far side of the pool: a process that pays the imports once and forks a child for every task.

It has one thread, so that forking is safe. Each child has one task, so that a crash, a leak or a time limit concerns
that task only. Run by `pool.py`; speaks pickled messages over an inherited socket, with its own parent and no one else.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any, NoReturn

_PR_SET_PDEATHSIG = 1
_OUTPUT_TAIL = 4000


@dataclass(frozen=True)
class Task:
    """Call `function(*arguments)` in a child of its own, for `time_limit` seconds at most (None: no limit)."""

    number: int
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    time_limit: float | None


@dataclass(frozen=True)
class Returned:
    """The task returned a value."""

    number: int
    value: Any


@dataclass(frozen=True)
class Failed:
    """The task raised, died or ran out of time. `report` is its traceback or the tail of its output."""

    number: int
    reason: str
    report: str


@dataclass(frozen=True)
class Ready:
    """The initializer has returned; tasks can come."""


@dataclass
class _Child:
    task: Task
    pid: int
    result: Connection
    output: Any
    deadline: float | None


def main(descriptor: int) -> None:
    """Serve tasks until the parent closes its end."""
    parent: Connection = Connection(descriptor)
    # Ctrl-C reaches the whole foreground group; what to stop, and when, is the parent's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    initializer, arguments = parent.recv()
    try:
        initializer(*arguments)
    except BaseException as error:  # the parent raises it: an import can fail in any way
        parent.send((error if _travels(error) else None, traceback.format_exc()))
        return
    gc.collect()
    gc.freeze()
    parent.send(Ready())
    _Server(parent).serve()
    sys.stderr.flush()
    os._exit(0)  # no clean-up of a process that has torch and the DSL in it: its children are gone, it holds no files


class _Server:
    def __init__(self, parent: Connection) -> None:
        self._parent = parent
        self._children: dict[Connection, _Child] = {}

    def serve(self) -> None:
        while True:
            ready = connection.wait([self._parent, *self._children], self._time_left())
            if self._parent in ready:
                try:
                    task = self._parent.recv()
                except (EOFError, ConnectionError):
                    self._kill_all()
                    return
                self._start(task)
            for result in ready:
                if isinstance(result, Connection) and result in self._children:
                    self._finish(self._children.pop(result))
            self._kill_late()

    def _start(self, task: Task) -> None:
        receiver, sender = connection.Pipe(duplex=False)
        output = tempfile.TemporaryFile()
        pid = os.fork()
        if pid == 0:
            _run_task(task, sender, output.fileno())
        sender.close()
        deadline = None if task.time_limit is None else time.monotonic() + task.time_limit
        self._children[receiver] = _Child(task, pid, receiver, output, deadline)

    def _finish(self, child: _Child) -> None:
        try:
            answer = child.result.recv()
        except (EOFError, OSError):
            answer = None
        child.result.close()
        _, status = os.waitpid(child.pid, 0)
        if answer is None:
            answer = Failed(child.task.number, _cause_of_death(status), _tail(child.output))
        child.output.close()
        self._parent.send(answer)

    def _time_left(self) -> float | None:
        deadlines = [child.deadline for child in self._children.values() if child.deadline is not None]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _kill_late(self) -> None:
        now = time.monotonic()
        for result, child in list(self._children.items()):
            if child.deadline is not None and child.deadline <= now:
                del self._children[result]
                os.kill(child.pid, signal.SIGKILL)
                os.waitpid(child.pid, 0)
                result.close()
                reason = f"took longer than the time limit of {child.task.time_limit:g} s"
                self._parent.send(Failed(child.task.number, reason, _tail(child.output)))
                child.output.close()

    def _kill_all(self) -> None:
        for child in self._children.values():
            os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)


def _run_task(task: Task, sender: Connection, output: int) -> NoReturn:
    code = 1
    try:
        # If the server is killed, its children must not go on.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.dup2(output, 1)
        os.dup2(output, 2)
        faulthandler.enable(file=2)
        gc.disable()  # the process ends with its task
        try:
            answer: Returned | Failed = Returned(task.number, task.function(*task.arguments))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".strip()
            answer = Failed(task.number, reason, traceback.format_exc())
        sender.send(answer)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _cause_of_death(status: int) -> str:
    if not os.WIFSIGNALED(status):
        return f"the worker ended with exit code {os.WEXITSTATUS(status)} and no result"
    number = os.WTERMSIG(status)
    cause = f"the worker was killed by {signal.Signals(number).name}"
    return f"{cause}; the system may have run out of memory" if number == signal.SIGKILL else cause


def _tail(output: Any) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - _OUTPUT_TAIL))
    text: str = output.read().decode(errors="replace")
    return text


def _travels(error: BaseException) -> bool:
    """Return whether the parent, which has not imported what we have, can unpickle the error."""
    return type(error).__module__.split(".")[0] == __name__.split(".")[0]

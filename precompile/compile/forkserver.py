"""The far side of the pool: a process that pays the imports once and forks a child for every task.

It has one thread, so that forking is safe. Each child has one task, so that a crash, a leak or a time limit concerns
that task only; what it had to learn for it, the children after it know (`Learner`). Run by `pool.py`; speaks pickled
messages over an inherited socket, with its own parent and no one else.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import logging
import os
import pickle
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any, NoReturn, Protocol

_LOG = logging.getLogger("fa4_precompile")

_PR_SET_PDEATHSIG = 1
_OUTPUT_TAIL = 4000

# A process that was killed just now may be at making a file.
_REMOVALS = 20


class Learner(Protocol):
    """What an initializer returns, so that no child repeats what one before it had to do."""

    def lesson(self) -> Any:
        """Return, in a child at its end, what it did that others would have to do as well. Must be picklable."""

    def learn(self, lesson: Any) -> None:
        """Do in the fork server what a child did. Raises nothing for what can't be done: then children do it."""


@dataclass(frozen=True)
class Task:
    """Make a call in a child of its own, for `time_limit` seconds at most (None: no limit).

    `call` is the pickled function with its arguments: if it can't be read, that concerns the child only.
    """

    number: int
    call: bytes
    time_limit: float | None


@dataclass(frozen=True)
class Returned:
    """The task returned a value, which is pickled here: that it can't be read concerns who asked for it only."""

    number: int
    value: bytes


@dataclass(frozen=True)
class Failed:
    """The task raised, died or ran out of time. `report` is its traceback or the tail of its output."""

    number: int
    reason: str
    report: str


@dataclass(frozen=True)
class Ready:
    """The initializer has returned; tasks can come. `warnings` is what it had to say."""

    warnings: tuple[str, ...] = ()


@dataclass
class _Child:
    task: Task
    pid: int
    result: Connection
    output: Any
    deadline: float | None


def main(descriptor: int, folder: str) -> None:
    """Serve tasks until the parent closes its end, with a folder for all temporary files, which is removed at the end.

    The parent removes it as well, as this process may be killed; if the parent is, this one is the last to live.
    """
    try:
        os.mkdir(folder, 0o700)
        _serve(Connection(descriptor))
    finally:
        _remove(folder)
    sys.stderr.flush()
    os._exit(0)  # no clean-up of a process that has torch and the DSL in it: its children are gone, it holds no files


def _serve(parent: Connection) -> None:
    # Ctrl-C reaches the whole foreground group; what to stop, and when, is the parent's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    initializer, arguments = parent.recv()
    gc.disable()  # a fifth of the imports' time goes into looking for garbage that they don't make
    warnings = _Warnings()
    _LOG.addHandler(warnings)
    try:
        learner = initializer(*arguments)
    except BaseException as error:  # the parent raises it: an import can fail in any way
        parent.send((error if _travels(error) else None, traceback.format_exc()))
        return
    _LOG.removeHandler(warnings)
    gc.collect()
    gc.freeze()
    gc.enable()
    parent.send(Ready(tuple(warnings.messages)))
    _Server(parent, learner).serve()


class _Warnings(logging.Handler):
    """Keeps what is said, as nobody sees this process's output unless it fails."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


class _Server:
    def __init__(self, parent: Connection, learner: Learner | None) -> None:
        self._parent = parent
        self._learner = learner
        self._children: dict[Connection, _Child] = {}

    def serve(self) -> None:
        while True:
            ready = connection.wait([self._parent, *self._children], self._time_left())
            if self._parent in ready:
                try:
                    task = self._parent.recv()
                except (EOFError, OSError):
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
            _run_task(task, self._learner, sender, output.fileno())
        _make_group(pid)
        sender.close()
        deadline = None if task.time_limit is None else time.monotonic() + task.time_limit
        self._children[receiver] = _Child(task, pid, receiver, output, deadline)

    def _finish(self, child: _Child) -> None:
        answer, lesson = _received(child.result), _received(child.result)
        child.result.close()
        _, status = os.waitpid(child.pid, 0)
        if answer is None:
            answer = pickle.dumps(Failed(child.task.number, _cause_of_death(status), _tail(child.output)))
        child.output.close()
        self._parent.send_bytes(answer)
        if self._learner is not None and lesson is not None:
            self._learner.learn(pickle.loads(lesson))
            gc.freeze()

    def _time_left(self) -> float | None:
        deadlines = [child.deadline for child in self._children.values() if child.deadline is not None]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _kill_late(self) -> None:
        now = time.monotonic()
        for result, child in list(self._children.items()):
            if child.deadline is not None and child.deadline <= now:
                del self._children[result]
                _kill(child)
                result.close()
                reason = f"took longer than the time limit of {child.task.time_limit:g} s"
                self._parent.send(Failed(child.task.number, reason, _tail(child.output)))
                child.output.close()

    def _kill_all(self) -> None:
        for child in self._children.values():
            _kill(child)


def _received(result: Connection) -> bytes | None:
    """Return a child's next message, None if it ended without one."""
    try:
        return result.recv_bytes()
    except (EOFError, OSError):
        return None


def _run_task(task: Task, learner: Learner | None, sender: Connection, output: int) -> NoReturn:
    code = 1
    try:
        _make_group(0)
        # If the server is killed, its children must not go on.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.dup2(output, 1)
        os.dup2(output, 2)
        faulthandler.enable(file=2)
        gc.disable()  # the process ends with its task
        sender.send_bytes(_answer(task))
        code = 0
        if learner is not None:
            sender.send_bytes(pickle.dumps(learner.lesson()))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _answer(task: Task) -> bytes:
    try:
        function, arguments = pickle.loads(task.call)
        return pickle.dumps(Returned(task.number, pickle.dumps(function(*arguments))))
    except Exception as error:
        return pickle.dumps(Failed(task.number, f"{type(error).__name__}: {error}".strip(), traceback.format_exc()))


def _make_group(pid: int) -> None:
    """Give a child, and what it runs in its turn, a process group: the C compiler must not outlive it."""
    try:
        os.setpgid(pid, pid)
    except OSError:  # it has done so itself, and ended
        pass


def _kill(child: _Child) -> None:
    os.killpg(child.pid, signal.SIGKILL)
    os.waitpid(child.pid, 0)


def _remove(folder: str) -> None:
    for _ in range(_REMOVALS):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):
            return
        time.sleep(0.05)


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

"""Making calls in processes of their own, so that what kills or hangs one costs that call only.

An error of CUDA's stays in a process until its end, so one in which a call failed that way is left, and so is one that
hangs. Else a process makes one call after the other: each costs seconds of imports.
"""

from __future__ import annotations

import fnmatch
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import IO, Any

from ..errors import Fa4PrecompileError, MachineError
from . import child
from .answer import Answer, Ready, Setting
from .due import Due

_START = f"import sys; sys.path = [p for p in sys.path if p]; from {child.__name__} import main; main(int(sys.argv[1]))"
_MOST_SECONDS_TO_START = 600.0  # torch and FlashAttention from a cold network filesystem
_MOST_SECONDS_TO_DIE = 10.0
_MOST_BYTES_OF_OUTPUT = 8000
_NOISE = "Extension modules:"
_DOCTOR = "`fa4-precompile doctor --role job` says what is missing"


class Children:
    """Makes calls, in one process at a time. Use it in a `with` statement.

    Args:
        setting: what each process is told.
        environment: variables on top of this process's; a None value unsets one, or all that begin so if the name ends
            in `*`.
        time_limit: seconds that a call may take.
    """

    def __init__(self, setting: Setting, environment: Mapping[str, str | None], time_limit: float) -> None:
        self._setting = setting
        self._environment = environment
        self._time_limit = time_limit
        self._child: _Child | None = None
        self._of: Mapping[str, str] = {}

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()

    def ready(self, runtime_env: Mapping[str, str]) -> Ready:
        """Have a process for calls with some variables, and return what it says of itself.

        Raises `MachineError` if it can't be had, or what it raised of this package's errors.
        """
        if self._child is None or self._of != runtime_env:
            self._leave()
            self._of = runtime_env
            self._child = _started({**self._environment, **runtime_env}, self._setting)
        return self._child.ready

    def make(self, due: Due) -> Answer:
        """Make a call, and return what became of it. Raises what `ready` does."""
        self.ready(due.runtime_env)
        assert self._child is not None
        answer = self._child.ask(due, self._time_limit)
        if not answer.is_sound:
            self._leave()
        return answer

    def _leave(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None


@dataclass
class _Child:
    process: subprocess.Popen[bytes]
    connection: Connection
    output: IO[bytes]
    ready: Ready

    def ask(self, due: Due, time_limit: float) -> Answer:
        """Have a call made."""
        try:
            self.connection.send(due)
            if self.connection.poll(time_limit):
                answer: Answer = self.connection.recv()
                return answer
        except (EOFError, OSError):
            return Answer(failure=_cause(self.process), report=_tail(self.output), is_sound=False)
        self.process.send_signal(signal.SIGABRT)  # by which it writes down where it is
        _wait(self.process)
        failure = f"takes longer than the time limit of {time_limit:g} s"
        return Answer(failure=failure, report=_tail(self.output), is_sound=False)

    def kill(self) -> None:
        """End it, whatever it does."""
        self.connection.close()
        self.process.kill()
        _wait(self.process)
        self.output.close()


def _started(environment: Mapping[str, str | None], setting: Setting) -> _Child:
    variables = dict(os.environ)
    for pattern in [name for name, value in environment.items() if value is None]:
        for name in fnmatch.filter(variables, pattern):
            del variables[name]
    variables.update({name: value for name, value in environment.items() if value is not None})
    output = tempfile.TemporaryFile()
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", _START, str(theirs.fileno())],
            env=variables,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is ours to handle
        )
    connection = Connection(ours.detach())
    begun = _Child(process, connection, output, Ready("", ""))
    try:
        begun.ready = _first_answer(begun, setting)
    except BaseException:
        begun.kill()
        raise
    return begun


def _first_answer(begun: _Child, setting: Setting) -> Ready:
    try:
        begun.connection.send(setting)
        if not begun.connection.poll(_MOST_SECONDS_TO_START):
            raise MachineError(f"the process that makes calls did not start within {_MOST_SECONDS_TO_START:g} s", "")
        first: Any = begun.connection.recv()
    except (EOFError, OSError):
        words = _tail(begun.output)
        raise MachineError(f"the process that makes calls {_cause(begun.process)}\n{words}".rstrip(), _DOCTOR) from None
    if isinstance(first, Fa4PrecompileError):
        raise first
    assert isinstance(first, Ready)
    return first


def _cause(process: subprocess.Popen[bytes]) -> str:
    code = _wait(process)
    if code is not None and code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    """Wait for a process for as long as one may take to die; a driver can keep one for ever."""
    try:
        return process.wait(_MOST_SECONDS_TO_DIE)
    except subprocess.TimeoutExpired:
        return None


def _tail(output: IO[bytes]) -> str:
    output.seek(0, os.SEEK_END)
    output.seek(max(0, output.tell() - _MOST_BYTES_OF_OUTPUT))
    lines = output.read().decode(errors="replace").strip().splitlines()
    return "\n".join(line for line in lines if not line.startswith(_NOISE))

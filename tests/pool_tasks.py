"""What the tests of the pool run in its children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

from fa4_precompile.errors import MachineError


def prepare(value: str) -> None:
    """Leave a mark in the fork server that its children see."""
    os.environ["PREPARED"] = value


class Pupil:
    """Learns the numbers of the children that it hears of."""

    def __init__(self) -> None:
        self.known: list[int] = []

    def lesson(self) -> object:
        """Return the child's number, or what can't be sent if the child is told so."""
        return (lambda: None) if os.environ.get("MUTE") else os.getpid()

    def learn(self, lesson: int) -> None:
        """Know the number from now on."""
        self.known.append(lesson)


_PUPIL = Pupil()


def prepare_to_learn() -> Pupil:
    """Let the fork server learn from its children."""
    return _PUPIL


def known() -> tuple[int, list[int]]:
    """Return who runs this, and what it knows of those before."""
    return os.getpid(), _PUPIL.known


def fall_silent() -> str:
    """Return an answer, and no lesson."""
    os.environ["MUTE"] = "yes"
    return "done"


def refuse() -> None:
    """Fail to initialize, with an error that the parent knows."""
    raise MachineError("nothing works here", "try another machine")


def crash_early() -> None:
    """End the fork server before it is ready."""
    sys.stderr.write("the last words\n")
    sys.stderr.flush()
    os._exit(7)


def prepared() -> tuple[str, int]:
    """Return the mark, and who runs this."""
    return os.environ["PREPARED"], os.getpid()


def variable(name: str) -> str | None:
    """Return a variable of the child's environment."""
    return os.environ.get(name)


def fail(words: str) -> NoReturn:
    """Raise."""
    raise ValueError(words)


def die(number: int) -> NoReturn:
    """Be killed by a signal, after some last words."""
    sys.stderr.write("falling")
    sys.stderr.flush()
    os.kill(os.getpid(), number)
    signal.pause()
    raise AssertionError


def leave(code: int) -> NoReturn:
    """End without a result."""
    os._exit(code)


def sleep(seconds: float) -> float:
    """Take a while."""
    time.sleep(seconds)
    return seconds


def wait_for_company(folder: str, count: int) -> int:
    """Return once `count` children are here at the same time."""
    with open(os.path.join(folder, str(os.getpid())), "w"):
        deadline = time.monotonic() + 120
        while len(os.listdir(folder)) < count and time.monotonic() < deadline:
            time.sleep(0.01)
    return len(os.listdir(folder))


def large(size: int) -> bytes:
    """Return more than a pipe holds."""
    return b"x" * size


def echo(content: bytes) -> bytes:
    """Return what came."""
    return content


def prepare_for_ever() -> None:
    """Be an import that takes too long."""
    time.sleep(600)


class Unwelcome:
    """Can't be pickled, or can't be unpickled, at least not where it is told not to be."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __reduce__(self) -> tuple[object, ...]:
        if self.where == "nowhere":
            raise LookupError("this stays here")
        return _welcome, (self.where, os.getpid())


def _welcome(where: str, sender: int) -> Unwelcome:
    if where == "elsewhere" and os.getpid() != sender:
        raise LookupError("this does not get in")
    return Unwelcome(where)


def unwelcome(where: str) -> Unwelcome:
    """Return what makes trouble on its way back."""
    return Unwelcome(where)


def leave_files(folder: str, name: str) -> None:
    """Write a temporary file, have another process write one, and tell where they are."""
    mine = tempfile.mkdtemp(prefix="fa4-compile-")
    theirs = subprocess.run(["mktemp"], capture_output=True, text=True, check=True).stdout.strip()
    Path(folder, f"{name}.part").write_text(f"{mine}\n{theirs}")
    os.rename(Path(folder, f"{name}.part"), Path(folder, name))
    time.sleep(600)


def run_another(path: str) -> None:
    """Wait for another process, and write down which."""
    with subprocess.Popen(["sleep", "600"]) as other:
        Path(path).write_text(str(other.pid))

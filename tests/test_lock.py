"""Locks: who waits is told the truth, and nobody waits for what will not come. With the filelock that is installed."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import filelock
import pytest

from fa4_precompile.cache import lock as lock_module
from fa4_precompile.cache.lock import Lock, NoLock, NoLocksHere
from support import event, join, start

_REFUSALS = (errno.ENOLCK, errno.EIO, errno.EACCES, errno.ENOSYS, errno.ENOTSUP, errno.EPERM, errno.EINVAL)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a lock file is to be."""
    (tmp_path / "locks").mkdir()
    return tmp_path / "locks" / "work.lock"


def _lock(path: Path) -> Lock:
    return Lock(path, "building a house")


def _get(path: Path, limit: float = 0.0) -> list[str]:
    """Take a lock, let go of it, and return what was said meanwhile."""
    said: list[str] = []
    lock = _lock(path)
    lock.acquire(said.append, limit)
    lock.release()
    return said


def _hold(path: Path, until: Any, held: Any) -> None:
    lock = _lock(path)
    lock.acquire(lambda _: None, 60)
    held.set()
    until.wait(120)
    lock.release()


# What the operating system refuses


@pytest.mark.parametrize("number", _REFUSALS, ids=errno.errorcode.get)
def test_acquire_where_the_system_refuses_says_so_and_does_not_wait(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(_descriptor: int, _operation: int) -> NoReturn:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    said: list[str] = []
    with pytest.raises(NoLocksHere) as caught:
        _lock(path).acquire(said.append, 3600)
    code = errno.errorcode[number]
    assert str(caught.value) == f"no lock can be had in `{path.parent}`: {os.strerror(number)} ({code})"
    assert said == []
    assert path.read_bytes() == b""  # nothing that a later version would take for somebody's


@pytest.mark.filterwarnings("ignore:flock not supported")
@pytest.mark.parametrize("number", _REFUSALS, ids=errno.errorcode.get)
def test_acquire_where_only_exclusive_locks_are_refused_says_so_and_does_not_wait(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    real = fcntl.flock

    def refuse(descriptor: int, operation: int) -> None:
        if operation & fcntl.LOCK_EX:
            raise OSError(number, os.strerror(number))
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(lock_module, "_MOST_MISSES", 3)
    said: list[str] = []
    with pytest.raises(NoLock):
        _lock(path).acquire(said.append, 3600)
    assert said == []


def test_acquire_where_the_system_does_not_answer_says_so_and_what_comes_late_is_given_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_module, "_ANSWER_S", 0.3)
    answer, real = threading.Event(), fcntl.flock

    def hang(descriptor: int, operation: int) -> None:
        answer.wait(120)
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", hang)
    lock = _lock(path)
    with pytest.raises(NoLocksHere, match="the filesystem did not answer within"):
        lock.acquire(lambda _: None, 3600)
    lock.release()
    answer.set()
    lock._thread.join(60)
    monkeypatch.undo()
    assert _get(path) == []


@pytest.mark.parametrize("folder", ["nowhere", "file"])
def test_acquire_where_no_file_can_be_made_says_so(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NoLocksHere, match=r"No such file|Not a directory"):
        _get(tmp_path / folder / "work.lock", 3600)


# Who has it


def test_acquire_of_what_another_has_tells_who_and_gets_it_when_that_one_is_done(path: Path) -> None:
    until, held = event(), event()
    other = start(_hold, path, until, held)
    assert held.wait(60)
    said: list[str] = []

    def say(message: str) -> None:
        said.append(message)
        until.set()

    lock = _lock(path)
    lock.acquire(say, 60)
    lock.release()
    join(other)
    (message,) = said
    who, when = f"process {other.pid} on {socket.gethostname()} is building a house since ", "; waiting for it"
    assert message.startswith(who)
    assert message.endswith(when)
    time.strptime(message.removeprefix(who).removesuffix(when), "%H:%M:%S")


def test_acquire_of_what_another_keeps_says_so_again_and_gives_up_at_the_limit(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_module, "_SAY_AGAIN_S", 0.3)
    said: list[str] = []
    keeper = _lock(path)
    keeper.acquire(said.append, 0)
    with pytest.raises(NoLock, match=f"process {os.getpid()} on .* building a house .* was waited for for ") as caught:
        _lock(path).acquire(said.append, 1.5)
    assert not isinstance(caught.value, NoLocksHere)
    assert len(said) >= 2
    keeper.release()
    assert _get(path) == []


def test_acquire_of_what_somebody_unknown_has_says_another_process(path: Path) -> None:
    with filelock.FileLock(path), pytest.raises(NoLock, match="another process is building a house"):
        _get(path)


@pytest.mark.parametrize(
    "name",
    ["", "{", "7", '{"pid": 1}', '{"pid": "x", "host": "h", "since": 1}', '{"pid": 1, "host": "a\\nb", "since": 1}'],
)
def test_acquire_of_what_is_signed_with_nonsense_says_another_process(path: Path, name: str) -> None:
    with filelock.FileLock(path):
        path.write_text(name)
        with pytest.raises(NoLock, match=r"^another process is building a house, which"):
            _get(path)


def test_name_of_a_process_that_was_killed_is_not_told_for_that_of_the_next(path: Path) -> None:
    held = event()
    other = start(_hold, path, event(), held)
    assert held.wait(60)
    other.kill()
    other.join(60)
    assert str(other.pid) in path.read_text()
    with filelock.FileLock(path):
        path.write_text(path.read_text() or f'{{"pid": {other.pid}, "host": "{socket.gethostname()}", "since": 1}}')
        with pytest.raises(NoLock, match="another process"):
            _get(path)
    assert _get(path) == []


def test_lock_that_a_builder_of_another_host_left_behind_holds_up_nobody(path: Path) -> None:
    # filelock makes such a file where the system has no locks, and its owner's end does not remove it.
    left = filelock.SoftFileLock(path)
    left.acquire()
    assert path.exists()
    assert _get(path) == []
    left.release()


# One at a time


@pytest.mark.chance
def test_lock_is_held_by_one_process_at_a_time(path: Path) -> None:
    inside = path.parent / "inside"

    def work() -> None:
        for _ in range(10):
            lock = _lock(path)
            lock.acquire(lambda _: None, 120)
            inside.touch(exist_ok=False)
            time.sleep(0.001)
            inside.unlink()
            lock.release()

    join(*(start(work) for _ in range(4)))


def test_lock_can_be_released_by_another_thread(path: Path) -> None:
    lock = _lock(path)
    lock.acquire(lambda _: None, 0)
    other = threading.Thread(target=lock.release)
    other.start()
    other.join(60)
    assert _get(path) == []


def test_child_that_is_forked_meanwhile_does_not_let_go_of_the_lock(path: Path) -> None:
    lock = _lock(path)
    lock.acquire(lambda _: None, 0)
    join(start(lock.release))
    with pytest.raises(NoLock):
        _get(path)
    lock.release()
    assert _get(path) == []


# The file


@pytest.mark.usefixtures("umask")
def test_lock_file_has_the_mode_that_is_documented_whatever_the_umask(path: Path) -> None:
    _get(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize("make", [os.symlink, os.link])
def test_lock_file_that_stands_for_another_is_refused_and_that_is_left_alone(path: Path, make: Any) -> None:
    precious = path.parent / "precious"
    precious.write_text("my thesis")
    precious.chmod(0o600)
    make(precious, path)
    with pytest.raises(NoLocksHere):
        _get(path, 3600)
    assert precious.read_text() == "my thesis"
    assert stat.S_IMODE(precious.stat().st_mode) == 0o600


def test_lock_file_that_is_a_fifo_is_refused_and_does_not_hang(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(NoLocksHere, match="no plain file"):
        _get(path, 3600)


# Signals


class _Stopped(BaseException):
    """What a signal's handler raises."""


@pytest.fixture
def stopping() -> Iterator[None]:
    """A handler that raises when the timer goes off."""

    def stop(_number: int, _frame: object) -> NoReturn:
        raise _Stopped

    before = signal.signal(signal.SIGALRM, stop)
    yield
    signal.signal(signal.SIGALRM, before)


@pytest.mark.chance
@pytest.mark.usefixtures("stopping")
def test_acquire_interrupted_at_any_moment_leaks_no_descriptor_and_leaves_the_lock_free(
    path: Path, attempt: int
) -> None:
    _get(path)
    descriptors = len(os.listdir("/proc/self/fd"))
    start = time.monotonic()
    for _ in range(20):
        _get(path)
    usual = (time.monotonic() - start) / 20
    moments, interrupted = random.Random(attempt), 0
    while interrupted < 100:  # however quick this machine is
        lock = _lock(path)
        try:
            signal.setitimer(signal.ITIMER_REAL, moments.uniform(1e-6, usual))
            try:
                lock.acquire(lambda _: None, 60)
            finally:
                lock.release()
            signal.setitimer(signal.ITIMER_REAL, 0)
        except (_Stopped, RuntimeError):  # the latter of a thread's start, which a signal takes unawares
            interrupted += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    del lock
    _get(path, 60)
    deadline = time.monotonic() + 60
    while len(os.listdir("/proc/self/fd")) > descriptors and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(os.listdir("/proc/self/fd")) == descriptors

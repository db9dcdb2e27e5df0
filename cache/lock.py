"""One process of a machine at a time, for work that is only done twice without it: nothing depends on it.

Guarantees
    `acquire` ends: it holds the lock, or says in a true sentence why not, and who holds it where that can be told.
Not guaranteed
    That a lock can be had at all, or that it keeps processes of two machines apart (some network filesystems).
Concurrency
    A thread of the lock's own asks the operating system, and holds what it gets. So a call that hangs does not hold up
    who waits, and what a signal's handler raises loses no descriptor.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import queue
import random
import re
import socket
import stat
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import Fa4PrecompileError
from .descriptors import opened

# Asking does not wait for who holds the lock, so this is how long a filesystem takes that is there at all.
_ANSWER_S = 10.0
_POLL_S = 0.2
_SAY_AGAIN_S = 240.0
# So often it may be free when it is asked for, and taken just then: by others who ask.
_MOST_MISSES = 100

_TAKEN = frozenset({errno.EAGAIN, errno.EWOULDBLOCK})
_PLAIN = os.O_NOFOLLOW | os.O_NONBLOCK
_MOST_BYTES = 256
_HOST = re.compile(r"[A-Za-z0-9._-]{1,64}")


class NoLock(Fa4PrecompileError):
    """The lock is not held, as another process holds it for too long."""


class NoLocksHere(NoLock):
    """The lock is not held, as no lock of this folder can be had."""


@dataclass(frozen=True)
class _Got:
    """It is ours."""


@dataclass(frozen=True)
class _Taken:
    """Another process, or another thread, has it: `by` is "WHO is DOING since WHEN", without what is not known."""

    by: str


@dataclass(frozen=True)
class _Refused:
    """It can't be had."""

    reason: str


class Lock:
    """A lock on some work, which is called `doing` where others wait for it. Each object is for one use.

    It is let go of by `release`, by the end of the process, and when nobody refers to the object any more.
    """

    def __init__(self, path: Path, doing: str) -> None:
        self._folder = path.parent
        self._process = os.getpid()
        self._is_held = False
        self._holder = _Holder(path, doing)
        self._thread = threading.Thread(target=self._holder.work, name="fa4-precompile-lock", daemon=True)
        self._holder.owner = weakref.ref(self, self._holder.over.put)

    def acquire(self, say: Callable[[str], None], limit: float) -> None:
        """Wait for the lock, so many seconds at most, and tell `say` who holds it meanwhile. Raises `NoLock`."""
        try:
            self._thread.start()
            self._wait(say, limit)
            self._is_held = True
        except BaseException:
            self._holder.over.put(None)
            raise

    def release(self) -> None:
        """Let go of the lock, if it is held. A child that was forked meanwhile does not hold it."""
        if self._process == os.getpid():
            self._holder.over.put(None)
            if self._is_held:
                self._thread.join(_ANSWER_S)

    def _wait(self, say: Callable[[str], None], limit: float) -> None:
        start, say_at = time.monotonic(), 0.0
        while not isinstance(answer := self._answer(), _Got):
            if isinstance(answer, _Refused):
                raise NoLocksHere(f"no lock can be had in `{self._folder}`: {answer.reason}")
            waited = time.monotonic() - start
            if waited >= limit:
                raise NoLock(f"{answer.by}, which was waited for for {waited:.0f} s")
            if waited >= say_at:
                say(f"{answer.by}; waiting for it")
                say_at = waited + _SAY_AGAIN_S

    def _answer(self) -> _Got | _Taken | _Refused:
        try:
            return self._holder.answers.get(timeout=_ANSWER_S)
        except queue.Empty:
            return _Refused(f"the filesystem did not answer within {_ANSWER_S:.0f} s")


class _Holder:
    """What a lock's thread does: it asks, says each answer, and holds the lock until it is `over`.

    Both are queues, as these have no step at which a signal's handler could come between.
    """

    def __init__(self, path: Path, doing: str) -> None:
        import filelock  # not where a job without `store` would pay for it

        self.answers: queue.SimpleQueue[_Got | _Taken | _Refused] = queue.SimpleQueue()
        self.over: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.owner: object = None
        self._path = path
        self._doing = doing
        self._lock = filelock.FileLock(path, mode=0o644, thread_local=False)

    def work(self) -> None:
        try:
            while True:
                try:
                    answer = self._ask()
                except Exception as error:  # whatever it is, it is a reason to go on without
                    answer = _Refused(_words(error))
                self.answers.put(answer)
                if self._is_over(None if isinstance(answer, _Got) else _POLL_S) or isinstance(answer, _Refused):
                    break
            if self._lock.is_locked:
                self._sign(b"")
        finally:
            self._lock.release()

    def _is_over(self, seconds: float | None) -> bool:
        try:
            self.over.get(timeout=seconds)
        except queue.Empty:
            return False
        return True

    def _ask(self) -> _Got | _Taken | _Refused:
        import filelock

        # Asked of the system first: of what is refused, some versions of filelock say that another process has it, and
        # some put another kind of lock in its place, which stays when its owner is killed.
        for _ in range(_MOST_MISSES):
            if by := self._taken_by():
                return _Taken(by)
            try:
                self._lock.acquire(timeout=0)
            except filelock.Timeout:
                time.sleep(random.uniform(0.0, 0.05))
                continue
            name = {"pid": os.getpid(), "host": socket.gethostname(), "since": int(time.time())}
            self._sign(json.dumps(name).encode())
            return _Got()
        return _Refused("it is free, and is not given")

    def _taken_by(self) -> str:
        """Return who has the lock, nothing if it is free. Raises `OSError` if there are no locks here."""
        with opened(self._path, os.O_RDWR | os.O_CREAT | _PLAIN, 0o644) as descriptor:
            _require_plain(descriptor)
            try:
                # Shared, so that two who ask don't take each other for one who works.
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
                return self._read_name(descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # not left to closing it: a child may be forked just now
            return ""

    def _read_name(self, descriptor: int) -> str:
        try:
            signed = json.loads(os.pread(descriptor, _MOST_BYTES, 0))
            pid, host, since = int(signed["pid"]), str(signed["host"]), time.localtime(signed["since"])
        except (OSError, ValueError, TypeError, LookupError, OverflowError, RecursionError):
            return f"another process is {self._doing}"
        is_gone = host == socket.gethostname() and not os.path.exists(f"/proc/{pid}")
        if is_gone or not _HOST.fullmatch(host):  # an earlier one's, who was killed
            return f"another process is {self._doing}"
        day = "" if since[:3] == time.localtime()[:3] else "%Y-%m-%d "
        return f"process {pid} on {host} is {self._doing} since {time.strftime(f'{day}%H:%M:%S', since)}"

    def _sign(self, name: bytes) -> None:
        """Write down who holds the lock. Best effort: it is for people."""
        try:
            with opened(self._path, os.O_WRONLY | _PLAIN) as descriptor:
                _require_plain(descriptor)
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, name, 0)
        except OSError:
            pass


def _require_plain(descriptor: int) -> None:
    """Raise `OSError` for what was put in a lock file's place: by who is trusted with the folder, but not with others.

    A file of ours that has another name could be any of our files.
    """
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1 or status.st_uid not in (os.geteuid(), 0):
        raise OSError(errno.EPERM, "the lock file is no plain file of this user's")
    if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) != 0o644:
        os.fchmod(descriptor, 0o644)  # whatever the umask


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror} ({errno.errorcode.get(error.errno or 0, error.errno)})"
    return f"{type(error).__name__}: {error}"

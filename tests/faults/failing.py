"""Failing system calls, one at a time: how a disk, a network filesystem or an administrator answers for once."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

NUMBERS = (errno.EIO, errno.ESTALE, errno.EACCES, errno.ENOENT, errno.ENOSPC, errno.EROFS, errno.EINTR)

_CALLS = ("open", "read", "fstat", "stat", "lstat", "listdir", "scandir", "close")


@contextmanager
def failing(at: int, number: int, forever: bool = False) -> Iterator[list[str]]:
    """Let one of this process's system calls fail, the one of this index, or all from there on.

    Yields the calls that were made so far; with an index below zero none fails.
    """
    made: list[str] = []
    with ExitStack() as stack:
        for name in _CALLS:
            stack.enter_context(mock.patch.object(os, name, _failing(name, made, at, number, forever)))
        yield made


def _failing(name: str, made: list[str], at: int, number: int, forever: bool) -> Callable[..., Any]:
    real = getattr(os, name)

    def call(*arguments: Any, **options: Any) -> Any:
        made.append(name)
        if 0 <= at < len(made) and (forever or at == len(made) - 1):
            if name == "close":  # the descriptor is gone all the same
                real(*arguments)
            raise OSError(number, os.strerror(number), *(arg for arg in arguments[:1] if isinstance(arg, str)))
        return real(*arguments, **options)

    return call


def passed_over(read: Callable[[], object], tells: Callable[[Any], bool]) -> list[str]:
    """Return the calls of a reader whose failure does not show: it raised, or its answer does not tell of it.

    That something is not there (ENOENT) can be the truth, so any answer to it will do; and once all is read, it does
    not matter that the system can't close it.
    """
    with failing(-1, 0) as made:
        assert not tells(read()), "it tells of something before anything has failed"
    found = []
    for at, name in enumerate(list(made)):
        for number in NUMBERS:
            for forever in (False, True):
                what = f"{name} {at} {errno.errorcode[number]}{' and all after it' if forever else ''}"
                try:
                    with failing(at, number, forever):
                        answer = read()
                except Exception as error:
                    found.append(f"{what}: {type(error).__name__}: {error}")
                else:
                    if number != errno.ENOENT and name != "close" and not tells(answer):
                        found.append(f"{what}: passed over")
    return found

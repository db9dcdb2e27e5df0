"""Descriptors that are closed, whatever happens: a signal's handler can raise between any two steps of Python code."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

_Got = TypeVar("_Got")


@contextmanager
def opened(path: Path | str, flags: int, mode: int = 0o777, folder: int | None = None) -> Iterator[int]:
    """Open a path, relative to an open folder if one is given, and yield its descriptor. Raises `OSError`."""
    held: list[int] = []
    closing = map(os.close, held)
    try:
        # The interpreter opens it and takes it down in one step, and closes it in one: no signal comes between.
        held.extend(map(functools.partial(os.open, dir_fd=folder), [path], [flags | os.O_CLOEXEC], [mode]))
        yield held[0]
    finally:
        list(closing)


def use(name: str, flags: int, folder: int, what: Callable[[int], _Got]) -> _Got:
    """Open a name in an open folder, and return what a function makes of its descriptor. Raises `OSError`.

    The same as `opened`, for a reader that does this 40,000 times: it takes half the time.
    """
    held: list[int] = []
    closing = map(os.close, held)
    try:
        held.extend(map(functools.partial(os.open, dir_fd=folder), (name,), (flags | os.O_CLOEXEC,)))
        return what(held[0])
    finally:
        list(closing)


def keep(path: Path | str, flags: int, held: list[int], folder: int | None = None) -> None:
    """Open a path, relative to an open folder if one is given, and add it to the descriptors that its caller holds.

    Raises `OSError`.
    """
    held.extend(map(functools.partial(os.open, dir_fd=folder), (path,), (flags | os.O_CLOEXEC,)))

"""Calls of the operating system that fail, or that a process does not come back from."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest


class OneFailure:
    """Lets the call of one number, counted from 0, of some functions of `os` fail, whichever thread makes it.

    `failed` is which function that was.
    """

    def __init__(self, patch: pytest.MonkeyPatch, calls: Sequence[str], number: int, left: int) -> None:
        self.failed = ""
        self._number = number
        self._calls = itertools.count()
        self._left = left
        self._lock = threading.Lock()
        for name in calls:
            patch.setattr(os, name, self._failing(name, getattr(os, name)))

    def _failing(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            with self._lock:
                is_the_one = next(self._calls) == self._left
            if not is_the_one:
                return real(*arguments, **options)
            if name == "close":
                real(*arguments)  # as Linux does, whatever it says
            self.failed = name
            raise OSError(self._number, os.strerror(self._number))

        return call


def die_before(step: int, *names: str) -> None:
    """Let this process be killed just before the call of that number, counted from 0, of some functions of `os`."""
    left = itertools.count(step, -1)

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return call

    for name in names:
        setattr(os, name, dying(getattr(os, name)))

"""Threads that work beside the main one, and that a signal's handler may interrupt it at any step of.

Not `concurrent.futures`: a handler that raises in the middle of its locks leaves one of them locked, and who waits for
it hangs. Here nothing waits but in a queue of the interpreter, which is in order whatever is raised.
"""

from __future__ import annotations

import _thread
from collections.abc import Callable
from itertools import count, repeat
from queue import SimpleQueue
from typing import Any

from ..errors import MachineError


class Crew:
    """Some threads, for the time of a `with`. At its end they have ended; jobs that have not begun are left then."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._numbers = count()
        self._jobs: SimpleQueue[tuple[int, Callable[[], Any]] | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[int, Any, BaseException | None] | None] = SimpleQueue()
        self._results: dict[int, tuple[Any, BaseException | None]] = {}
        self._threads: list[int] = []
        self._is_over = False

    def give(self, job: Callable[[], Any]) -> int:
        """Have something done, and return the number that its result has."""
        number = next(self._numbers)
        self._jobs.put((number, job))
        return number

    def result(self, number: int) -> Any:
        """Return what a job returned, once it has. Raises what the job raised. Can be asked once."""
        while number not in self._results:
            if (done := self._done.get()) is not None:
                self._results[done[0]] = done[1:]
        value, error = self._results.pop(number)
        if error is not None:
            raise error
        return value

    def __enter__(self) -> Crew:
        try:
            # Started and taken down in one step of the interpreter: no signal comes between.
            self._threads.extend(map(_thread.start_new_thread, repeat(self._work, self._size), repeat(())))
        except RuntimeError:
            if not self._threads:  # one is enough
                raise MachineError("this process can't start a thread", "raise `ulimit -u`") from None
        return self

    def __exit__(self, *_error: object) -> None:
        self._is_over = True
        left = len(self._threads)
        for _ in range(left):
            self._jobs.put(None)
        while left:
            left -= self._done.get() is None

    def _work(self) -> None:
        while (task := self._jobs.get()) is not None:
            if self._is_over:
                continue
            number, job = task
            try:
                self._done.put((number, job(), None))
            except BaseException as error:
                self._done.put((number, None, error))
        self._done.put(None)

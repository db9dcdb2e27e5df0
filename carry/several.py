"""Doing the same to many things, a few at a time: what waits for a network is done side by side."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar, cast

_Thing = TypeVar("_Thing")
_Made = TypeVar("_Made")


class Several(Generic[_Thing, _Made]):
    """Calls a function for each of many things, in threads of its own, and yields what comes of them as they are done.

    Guarantees
        No more than `at_a_time` things, and no more than `most_bytes` of them, are begun and not yet taken; but one
        thing always is, however large. The first error ends it, and nothing new is begun.
    Not guaranteed
        That what was begun has ended when nobody takes it any more. A process that ends does not wait for it.
    """

    def __init__(
        self,
        work: Callable[[_Thing], _Made],
        size: Callable[[_Thing], int],
        at_a_time: int = 16,
        most_bytes: int = 1 << 28,
    ) -> None:
        self._work = work
        self._size = size
        self._at_a_time = at_a_time
        self._most_bytes = most_bytes
        self._done: queue.SimpleQueue[tuple[_Thing, _Made | None, BaseException | None]] = queue.SimpleQueue()

    def each(self, things: Iterable[_Thing]) -> Iterator[tuple[_Thing, _Made]]:
        """Yield each thing with what came of it, in the order in which they are done. Raises what the work raises."""
        begun = held = 0
        for thing in things:
            while begun and (begun >= self._at_a_time or held + self._size(thing) > self._most_bytes):
                done, made = self._next()
                begun, held = begun - 1, held - self._size(done)
                yield done, made
            begun, held = begun + 1, held + self._size(thing)
            threading.Thread(target=self._one, args=(thing,), daemon=True).start()
        for _ in range(begun):
            yield self._next()

    def _one(self, thing: _Thing) -> None:
        try:
            self._done.put((thing, self._work(thing), None))
        except BaseException as error:  # who takes it raises it
            self._done.put((thing, None, error))

    def _next(self) -> tuple[_Thing, _Made]:
        thing, made, error = self._done.get()
        if error is not None:
            raise error
        return thing, cast("_Made", made)  # as there is no error

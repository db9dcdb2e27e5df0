"""How long a place is waited for, and how often it is asked again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ..errors import CarryError

_Made = TypeVar("_Made")


class NotNow(Exception):
    """A place can't be reached, or gave up half-way. It may do better another time. The text says what happened.

    `pause_s` is how long it asks to be left alone.
    """

    def __init__(self, said: str, pause_s: float = 0.0) -> None:
        super().__init__(said)
        self.pause_s = pause_s


@dataclass(frozen=True)
class Patience:
    """How long a place is waited for.

    Attributes:
        connect_s: until a connection is there.
        silence_s: while nothing comes.
        slowest: how many bytes must come each second, of each of the files that come side by side, after a first
            `connect_s` and `silence_s`; what is slower would never end.
        pauses_s: before a second try, and before each further one; each is longer by a random part, so that a
            thousand nodes don't come back at the same moment.
        longest_s: how long a place is left alone at most, whatever it asks for.
    """

    connect_s: float = 15.0
    silence_s: float = 60.0
    slowest: int = 4_000
    pauses_s: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    longest_s: float = 30.0

    def whole(self, size: int) -> float:
        """Return how many seconds so many bytes may take, the first of them included."""
        return self.connect_s + self.silence_s + size / self.slowest

    def tried(self, place: str, ask: Callable[[], _Made]) -> _Made:
        """Return what comes of asking, again after each pause if it is `NotNow`. Raises `CarryError` in the end."""
        for pause in self.pauses_s:
            try:
                return ask()
            except NotNow as error:
                time.sleep(min(max(pause, error.pause_s), self.longest_s) * random.uniform(1, 1.5))
        try:
            return ask()
        except NotNow as error:
            raise CarryError(place, f"gives up after {len(self.pauses_s) + 1} tries: {error}") from None

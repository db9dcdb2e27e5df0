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
    """A place can't be reached, or gave up half-way. It may do better another time. The text says what happened."""


@dataclass(frozen=True)
class Patience:
    """How long a place is waited for.

    Attributes:
        connect_s: until a connection is there.
        silence_s: while nothing comes.
        slowest: how many bytes must come each second, of each of the files that come side by side, after a first
            `connect_s` and `silence_s`; what is slower would never end.
        pauses_s: before a second try, and before each further one; a random part of each is left out, so that a
            thousand nodes don't come back at the same moment.
    """

    connect_s: float = 15.0
    silence_s: float = 60.0
    slowest: int = 4_000
    pauses_s: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)

    def whole(self, size: int) -> float:
        """Return how many seconds so many bytes may take, the first of them included."""
        return self.connect_s + self.silence_s + size / self.slowest

    def tried(self, place: str, ask: Callable[[], _Made]) -> _Made:
        """Return what comes of asking, again after each pause if it is `NotNow`. Raises `CarryError` in the end."""
        for pause in self.pauses_s:
            try:
                return ask()
            except NotNow:
                time.sleep(pause * random.uniform(0.5, 1))
        try:
            return ask()
        except NotNow as error:
            raise CarryError(place, f"{error}, after {len(self.pauses_s) + 1} tries") from None

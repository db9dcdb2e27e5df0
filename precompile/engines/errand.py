"""What travels between a build and the workers of an engine. Data only.

The errand itself is pickled by us: a worker with another version of this package can say so before it reads it.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ...cache.toolchain import Toolchain
from ...providers.call import Environment
from ..compile.worker import Pinned
from ..publication import RequireLoads


@dataclass(frozen=True)
class Kit:
    """What a worker must have.

    Attributes:
        pinned: the provider, and the target that it is pinned to.
        toolchain: what the build found installed on its own machine.
        sources: SHA-256 of each file that the spec's functions are made of, by module.
        time_limits: seconds that a task may take, by its function.
    """

    pinned: Pinned
    toolchain: Toolchain
    sources: Mapping[str, str] = field(default_factory=dict)
    time_limits: Mapping[Callable[..., Any], float] = field(default_factory=dict)


class Then(Protocol):
    """What a worker does with an answer instead of sending it back. Can be pickled."""

    def __call__(self, answer: Any, arguments: tuple[Any, ...], require_loads: RequireLoads) -> Any:
        """Return what is sent back. Raises an error of this package."""


@dataclass(frozen=True)
class Errand:
    """A call of a function in a fork server's child, on any machine that has the kit."""

    kit: Kit
    environment: Environment
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    then: Then | None = None


@dataclass(frozen=True)
class Done:
    """What came of an errand, pickled, with the digest that it had in the process that it was made in."""

    where: str
    value: bytes
    digest: str

    def is_whole(self) -> bool:
        """Return whether these are the bytes that were made."""
        return hashlib.sha256(self.value).hexdigest() == self.digest


@dataclass(frozen=True)
class Undone:
    """The task raised, died or ran out of time."""

    where: str
    reason: str
    report: str


@dataclass(frozen=True)
class TurnedDown:
    """The worker has not what it takes, or it was not meant: `reason` is empty then."""

    where: str
    reason: str


@dataclass(frozen=True)
class Digested:
    """A function that returns its value pickled, and the digest of that."""

    function: Callable[..., Any]

    def __call__(self, *arguments: Any) -> tuple[bytes, str]:
        """Call the function."""
        return digested(self.function(*arguments))


def digested(value: Any) -> tuple[bytes, str]:
    """Return a value pickled, and the digest of that."""
    data = pickle.dumps(value)
    return data, hashlib.sha256(data).hexdigest()

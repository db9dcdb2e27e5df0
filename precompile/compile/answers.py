"""What comes back from asking a provider about calls, one answer a call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import UsageError
from ...providers.call import Reached, Refused


@dataclass(frozen=True)
class Taken:
    """The provider takes the call.

    Attributes:
        reached: the keys that it looks up, as indices.
        main: the one that the call's demands are about; None if it looks up none in that slot.
    """

    reached: Sequence[int]
    main: int | None


@dataclass(frozen=True)
class Broken:
    """Something went wrong that is not the provider's word on the call: its traceback."""

    report: str


@dataclass(frozen=True)
class WrongSpec:
    """The spec is wrong in a way that could only be seen where the provider is."""

    error: UsageError


Answer = Taken | Refused | Broken | WrongSpec


@dataclass(frozen=True)
class Answers:
    """The answers to a list of calls, in its order; their indices point into `kernels`."""

    kernels: Sequence[Reached]
    calls: Sequence[Answer]

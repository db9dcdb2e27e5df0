"""What comes back from asking a provider about a call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import UsageError
from ...providers.call import Reached


@dataclass(frozen=True)
class Taken:
    """The provider takes the call.

    Attributes:
        reached: the keys that it looks up.
        main: the one that the call's demands are about; None if it looks up none in that slot.
    """

    reached: Sequence[Reached]
    main: Reached | None


@dataclass(frozen=True)
class NotTaken:
    """The provider does not take the call, in its own words; `reached` are the keys before it said so."""

    reason: str
    reached: Sequence[Reached] = ()


@dataclass(frozen=True)
class Broken:
    """Something went wrong that is not the provider's word on the call: its traceback."""

    report: str


@dataclass(frozen=True)
class WrongSpec:
    """The spec is wrong in a way that could only be seen where the provider is."""

    error: UsageError


Answer = Taken | NotTaken | Broken | WrongSpec

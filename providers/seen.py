"""What a provider saw of a call that a job made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class SeenCall:
    """A call, as far as a spec can say it.

    Attributes:
        axes: those that are not at their default, by name, as JSON; None if the call is not known.
        unsaid: what it has that no axis says, in words; without that it is another call.
    """

    axes: Mapping[str, object] | None
    unsaid: Sequence[str] = ()

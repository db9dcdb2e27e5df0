"""What comes back from asking a provider about a call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...errors import UsageError
from ...providers.call import Call, Identity, Reached, Refused, Unmet, Variant


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


@dataclass(frozen=True)
class Closed:
    """What comes of a call whose sizes are open.

    Attributes:
        answers: few calls that together reach all that any of them does, or are turned down for all reasons there are.
        by: for each kernel, the size that reaches it alone, from the call's ordinary sizes; empty if it is reached
            there, None if it takes several.
        asked: how many calls were asked about.
    """

    answers: Sequence[tuple[Call, Answer]]
    by: Mapping[Identity, str | None]
    asked: int

    @property
    def is_open(self) -> bool:
        """Return whether another way to make the call may change what is known of some sizes."""
        return any(isinstance(objection(call.variant, answer), (Refused, Unmet)) for call, answer in self.answers)


def objection(variant: Variant, answer: Answer) -> Refused | Unmet | None:
    """Return why a call is not taken, or is not what was demanded, else nothing."""
    if isinstance(answer, NotTaken):
        return Refused(answer.reason)
    if not isinstance(answer, Taken) or not variant.demands:
        return None
    if answer.main is None:
        reason = "the provider looks up no kernel of this pass, so its tile, cluster_size and backend are not known"
        return Refused(reason)
    selection = answer.main.selection
    unmet = variant.demands.unmet_by(selection)
    return Unmet(f"demands {', '.join(unmet)}; the provider selects {selection}") if unmet else None

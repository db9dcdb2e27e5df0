"""Functions of the user's that a provider compiles into its kernels: who knows them in a process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import FrameType

from ..cache.description import Description
from ..cache.key import Facts
from ..errors import UsageError


@dataclass(frozen=True)
class Recognized:
    """What a lookup is about.

    Attributes:
        key: the key as any process would look it up.
        modifiers: what each function does that is in the key, by the name of the provider's argument.
        problem: why one of them can't be recognized; then no kernel is known to be the right one.
    """

    key: object
    modifiers: Mapping[str, Description] = field(default_factory=dict)
    problem: UsageError | None = None

    @property
    def facts(self) -> Facts:
        """What is known of the kernel's facts before it is compiled."""
        return {name: description.digest for name, description in self.modifiers.items()}


class Recognizer:
    """Knows the functions in a provider's keys; this one is for providers that have none."""

    def watch(self) -> None:
        """Begin: the provider is imported."""

    def recognize(self, key: object, frame: FrameType | None) -> Recognized:
        """Return what a lookup is about; `frame` is in the call that makes it. Raises nothing."""
        del frame
        return Recognized(key)

    def close(self) -> None:
        """Leave the provider as it was before `watch`."""

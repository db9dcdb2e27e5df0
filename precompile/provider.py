"""The seam between planning and building on one side and a kernel library on the other."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from ..cache.record import Selection
from ..cache.slots import SlotOwner
from ..cache.target import Target
from .device_facts import DeviceFacts
from .variant import Variant


@dataclass(frozen=True)
class Call:
    """A variant, and how to make the provider choose what the variant demands.

    Attributes:
        variant: the call.
        pass_tile: hand the variant's tile to the provider as an argument.
        environment: variables that the job must set.
    """

    variant: Variant
    pass_tile: bool = False
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Pinned:
    """What a fork server is started for: a target, and the package that the provider's code is in."""

    target: Target
    package: str


class Provider(Protocol):
    """A kernel library, imported and pinned to a target. Lives in the fork server only.

    Attributes:
        facts: the answers to the device's questions, and who asked.
        cute: the DSL's module `cutlass.cute`, whose `compile` makes every kernel.
        dsl_cuda: CUDA major of the DSL's libraries that were loaded.
    """

    facts: DeviceFacts
    cute: Any
    dsl_cuda: int

    def slots(self) -> Mapping[str, SlotOwner]:
        """Return the provider's compile caches by slot name."""

    def is_refusal(self, error: Exception) -> bool:
        """Return whether an error that `call` raised is the provider's word on the call."""

    def named_key(self, slot: str, key: object) -> Mapping[str, object]:
        """Return a key's values by the names that the provider's source has for its positions; for people only."""

    def call(self, call: Call) -> None:
        """Make the call with tensors that have no memory."""

    def looking_only(self) -> AbstractContextManager[None]:
        """Save the provider what it does for its compiler only, while nothing is compiled."""

    def main_slot(self, variant: Variant) -> str:
        """Return the slot that a variant's demands are about."""

    def selection(self, kernel: object, key_fields: Mapping[str, object]) -> Selection:
        """Return what the provider chose, read from the kernel object that it hands to its compiler."""

"""The words in which a provider is asked for its kernels, and answers. Data only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..cache.description import Description
from ..cache.key import Facts, KeyText
from ..cache.record import Selection

Environment = tuple[tuple[str, str], ...]
"""Variables by name, sorted."""


@dataclass(frozen=True)
class Demands:
    """What a spec demands of the kernel that the provider chooses; None takes the provider's choice."""

    tile: tuple[int, int] | None = None
    cluster_size: int | None = None
    backend: str | None = None

    def __bool__(self) -> bool:
        return self != Demands()

    def unmet_by(self, selection: Selection) -> list[str]:
        """Return what a selection does not have of them, in words."""
        unmet = []
        if self.cluster_size not in (None, selection.cluster_size):
            unmet.append(f"cluster_size {self.cluster_size}")
        if self.backend not in (None, selection.backend):
            unmet.append(f"backend {self.backend}")
        if self.tile is not None and self.tile not in selection.tiles.values():
            unmet.append(f"tile {self.tile[0]}x{self.tile[1]}")
        return unmet


class Variant(Protocol):
    """One point of a spec: one call that a job would make.

    A frozen dataclass of the provider's own, with its axes as fields. Equal variants are one call, so that those whose
    keys differ must differ, as `15` and `15.0` may; it can be hashed and pickled, and its text is one line for people.
    """

    @property
    def demands(self) -> Demands:
        """What is demanded of the kernel that the call is about."""

    @property
    def job_env(self) -> Environment:
        """Variables that the job sets for such calls."""

    @property
    def caller(self) -> str | None:
        """A function of the user's that makes the call, as `module:function`; None for a call of the provider's own."""

    @property
    def functions(self) -> Sequence[str]:
        """Functions of the user's that get into its kernels, as `module:attribute`."""

    def __hash__(self) -> int: ...

    def render(self) -> dict[str, object]:
        """Return the axes that are not at their default, by their names in a spec, as JSON."""


@dataclass(frozen=True)
class Call:
    """A variant, and how to make the provider choose what the variant demands.

    Attributes:
        variant: the call.
        environment: variables that the job must set.
        pass_tile: hand the demanded tile to the provider as an argument.
        runtime: what no axis says of a call, as it reaches no kernel: a scale, how tensors lie in memory. By name; what
            is not named is as usual. Only who checks that it reaches none says any.
    """

    variant: Variant
    environment: Environment = ()
    pass_tile: bool = False
    runtime: tuple[tuple[str, object], ...] = ()


@dataclass(frozen=True)
class Range:
    """Values of a size that a variant leaves open.

    Attributes:
        low, high: the first and the last.
        ordinary: the one that the size has where nobody says another.
        step: what they are multiples of.
    """

    low: int
    high: int
    ordinary: int
    step: int = 1


@dataclass(frozen=True)
class Reached:
    """A key that a call looks up, and what the provider chose for it.

    `modifiers` are the functions of the user's in the key, by the names of the provider's arguments.
    """

    slot: str
    key: KeyText
    key_fields: Mapping[str, object]
    selection: Selection
    modifiers: Mapping[str, Description] = field(default_factory=dict)

    @property
    def facts(self) -> Facts:
        """What is known of the kernel's facts before it is compiled."""
        return {name: description.digest for name, description in self.modifiers.items()}

    @property
    def identity(self) -> Identity:
        """What no other kernel of a target has."""
        return self.slot, self.key, tuple(sorted(self.facts.items()))


Identity = tuple[str, KeyText, tuple[tuple[str, "int | str"], ...]]
"""The slot and the key of a kernel, and the digests of the functions in it."""


@dataclass(frozen=True)
class Selected:
    """The provider takes a variant: the kernel that its demands are about, and the variables that a job must set."""

    kernel: Reached
    environment: Environment


@dataclass(frozen=True)
class Refused:
    """The provider does not take a variant, in its own words."""

    reason: str


@dataclass(frozen=True)
class Unmet:
    """The provider takes a variant, and chooses another kernel than is demanded, whatever its switches."""

    reason: str


Select = Callable[[Sequence[Variant]], Mapping[Variant, Selected | Refused | Unmet]]
"""Asks the provider, in a process of its own, what it selects."""


BlockSize = tuple[int, int]


@dataclass(frozen=True)
class BlockSizes:
    """The block sizes that masks for a call must be built with.

    Attributes:
        forward: rows of Q and of KV that a block of the forward's mask (Q to K) covers.
        backward: the same of the backward's mask (K to Q); None for `pass_="fwd"`.
        job_env: variables that the job must set for such calls.
    """

    forward: BlockSize
    backward: BlockSize | None
    job_env: Mapping[str, str]


@dataclass(frozen=True)
class Matrix:
    """What a provider supports, point by point: as JSON, and as a table for people."""

    points: Sequence[Mapping[str, object]]
    lines: Sequence[str]

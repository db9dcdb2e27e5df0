"""Parts of a build that several machines make, each for itself: which kernel belongs to which."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..cache.key import kernel_id
from ..cache.target import Target
from ..cache.toolchain import Toolchain

if TYPE_CHECKING:  # what plans is not needed to name a shard
    from .plan import PlannedKernel

_DIGITS = 15  # of a kernel id: an integer that any language has exactly, and evenly spread


@dataclass(frozen=True)
class Shard:
    """One of `of` parts of a build, by its number from 1 on."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def that_builds(self, toolchain: Toolchain, target: Target, planned: PlannedKernel) -> Shard:
        """Return the shard, of as many, that builds a kernel.

        It is told by the kernel alone, as its id is without facts of the device, which are known only after compiling:
        what else a spec has moves no kernel to another shard. Nor do the hosts: one compile is for all of them.
        """
        reached, any_hosts = planned.reached, replace(toolchain, machine="", host_compiler={})
        kernel = kernel_id(any_hosts.id, target.arch, reached.slot, reached.key, reached.facts)
        return Shard(int(kernel[:_DIGITS], 16) % self.of + 1, self.of)

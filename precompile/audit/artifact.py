"""What a kernel came out as, and having many compiled."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass

from ...cache.outcome import Miss
from ...cache.store import Root
from ...errors import ProductError
from ...products.cubin import Cubin, read_cubin
from ...products.differing import differences
from ..compile.answers import Identity
from ..compile.compilers import Compilers
from ..compile.pool import TaskFailed
from ..compile.worker import compile_kernel
from ..inventory import find_planned
from ..order import in_order
from ..plan import PlannedKernel
from ..progress import Progress


@dataclass(frozen=True)
class Artifact:
    """A cubin, and what was asked of the device while it was compiled; None where nobody took note of that."""

    cubin: Cubin
    facts: Mapping[str, int] | None = None

    @property
    def digest(self) -> str:
        """The SHA-256 of the cubin."""
        return hashlib.sha256(self.cubin.image).hexdigest()

    def differs(self, other: Artifact) -> list[str]:
        """Return what it differs in from another, a phrase each; nothing if they are one artifact."""
        found = differences(self.cubin, other.cubin)
        if self.facts is not None and other.facts is not None and self.facts != other.facts:
            found.append(f"device facts {dict(self.facts)} and {dict(other.facts)}")
        return found


Outcome = Artifact | str
"""A kernel, or why there is none."""


def identity(planned: PlannedKernel) -> Identity:
    """Return a kernel's slot and key."""
    return planned.reached.slot, planned.reached.key


def cached(root: Root, compilers: Compilers, planned: PlannedKernel) -> Artifact | None:
    """Return a kernel as a cache has it, verified; None if it does not. Raises `UntrustedError`."""
    if root.is_new:
        return None
    record = find_planned(root, compilers.toolchain, compilers.target, planned)
    found = None if record is None else root.find(record.toolchain, record.id)
    if record is None or found is None or isinstance(found, Miss):
        return None
    return Artifact(read_cubin(found.blob), record.facts)


def compile_all(wanted: Sequence[PlannedKernel], compilers: Compilers, progress: Progress) -> list[Outcome]:
    """Compile each kernel from its call, as a build does; nothing is published. Return what came of them, in order."""
    found: dict[int, Outcome] = {}
    places = {id(planned): place for place, planned in enumerate(wanted)}
    if not wanted:
        return []
    progress.start(len(wanted), compilers.jobs)
    try:
        for environments in compilers.rounds(planned.call.environment for planned in wanted):
            these = [planned for planned in wanted if planned.call.environment in environments]
            futures = {
                compilers.pool(one.call.environment).submit(
                    compile_kernel, compilers.pinned, compilers.toolchain.id, one.call, one.reached
                ): one
                for one in in_order(these, lambda one: _cost(compilers, one))
            }
            for future in as_completed(futures):
                planned = futures[future]
                try:
                    product = future.result()
                    found[places[id(planned)]] = Artifact(read_cubin(product.blob), product.facts)
                    progress.done(planned.label, product.compile_seconds, "")
                except (TaskFailed, ProductError) as error:
                    reason = error.reason if isinstance(error, TaskFailed) else str(error)
                    found[places[id(planned)]] = reason
                    progress.failed(planned.label, reason)
    finally:
        progress.finish()
    return [found[place] for place in range(len(wanted))]


def _cost(compilers: Compilers, planned: PlannedKernel) -> tuple[int, ...]:
    return compilers.provider.expected_cost(planned.call.variant, planned.reached.slot)

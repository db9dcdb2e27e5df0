"""What a kernel came out as, and having many compiled."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass

from ...cache.key import Facts
from ...cache.outcome import Miss
from ...cache.store import Root
from ...errors import ProductError
from ...products.cubin import Cubin, read_cubin
from ...products.differing import differences
from ...products.product import Product
from ...providers.call import Identity
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
    facts: Facts | None = None

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
    """Return what no other kernel has."""
    return planned.reached.identity


def cached(root: Root, compilers: Compilers, planned: PlannedKernel) -> Artifact | None:
    """Return a kernel as a cache has it, verified; None if it does not. Raises `UntrustedError`."""
    if root.is_new:
        return None
    record = find_planned(root, compilers.toolchain, compilers.target, planned)
    found = None if record is None else root.find(record.toolchain, record.id)
    if record is None or found is None or isinstance(found, Miss):
        return None
    return Artifact(read_cubin(found.blob), record.facts)


def compile_each(
    wanted: Sequence[PlannedKernel], compilers: Compilers, progress: Progress
) -> Iterator[tuple[PlannedKernel, Outcome]]:
    """Compile each kernel from its call, as a build does, and yield what came of it. Nothing is published."""
    if not wanted:
        return
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
                planned = futures.pop(future)
                yield planned, _outcome(planned, future, progress)
    finally:
        progress.finish()


def _outcome(planned: PlannedKernel, future: Future[Product], progress: Progress) -> Outcome:
    try:
        product = future.result()
        artifact = Artifact(read_cubin(product.blob), product.facts)
    except (TaskFailed, ProductError) as error:
        reason = error.reason if isinstance(error, TaskFailed) else str(error)
        progress.failed(planned.label, reason)
        return reason
    progress.done(planned.label, product.compile_seconds, "")
    return artifact


def _cost(compilers: Compilers, planned: PlannedKernel) -> tuple[int, ...]:
    return compilers.provider.expected_cost(planned.call.variant, planned.reached.slot)

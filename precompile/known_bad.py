"""What a build does about kernels that are known to be bad, and which of a cache are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..cache.key import KernelId
from ..cache.outcome import FAULTS, Miss
from ..cache.store import Root
from ..cache.target import Target
from ..cache.toolchain import Toolchain
from ..errors import KnownBadError
from ..providers.known_bad.entry import Entry
from ..providers.known_bad.listed import NOTHING, KnownBad
from .inventory import find_planned

if TYPE_CHECKING:  # what plans imports what builds, and a finished build needs neither
    from ..providers.call import Reached
    from .plan import PlannedKernel
    from .spec.spec import Spec


@dataclass(frozen=True)
class Guard:
    """Refuses kernels that are known to be bad, unless they are allowed; those are marked where they come from.

    `known` is what is known of what this build's toolchain makes for its target.
    """

    known: KnownBad = NOTHING
    is_allowed: bool = False

    @property
    def has_no_doubt(self) -> bool:
        """Whether nothing is refused, whichever kernels are asked for."""
        return self.is_allowed or not self.known

    def good(self, target: Target, kernels: Sequence[PlannedKernel]) -> Sequence[PlannedKernel]:
        """Return kernels as they are. Raises `KnownBadError` if one of them is known to be bad."""
        if self.has_no_doubt:
            return kernels
        if hit := [(planned.label, found) for planned in kernels if (found := self._of(planned.reached))]:
            reasons = dict.fromkeys(str(entry) for _, found in hit for entry in found)
            raise KnownBadError(target.name, [label for label, _ in hit], list(reasons))
        return kernels

    def told_of(self, reached: Reached) -> Mapping[str, str]:
        """Return what is known to go wrong with a kernel, by the entry's id."""
        return {entry.id: entry.told for entry in self._of(reached)}

    def _of(self, reached: Reached) -> list[Entry]:
        return self.known.of(reached.slot, reached.key_fields)


UNGUARDED = Guard()


@dataclass(frozen=True)
class Doubt:
    """An entry of the list, and the kernels that it is about: ids, or places in a plan."""

    entry: Entry
    kernels: Sequence[KernelId | int]

    def render(self) -> dict[str, object]:
        """Return the fields as JSON."""
        entry = self.entry
        return {"id": entry.id, "what": entry.what, "source": entry.source, "kernels": list(self.kernels)}


def require_good(spec: Spec, target: Target, toolchain: Toolchain, root: Root, guard: Guard) -> None:
    """Plan a spec, if what is known can be about it, and raise `KnownBadError` if a missing kernel is known to be bad.

    A build asks for itself. This is for a target whose turn comes hours later.
    """
    if guard.has_no_doubt:
        return

    from .compile.compilers import Compilers
    from .compile.pool import default_jobs
    from .plan import make_plan

    with Compilers(spec.provider, target, toolchain, default_jobs()) as compilers:
        kernels = make_plan(spec, compilers).kernels
    guard.good(target, [one for one in kernels if find_planned(root, toolchain, target, one) is None])


def doubts_of_plan(known: KnownBad, kernels: Sequence[PlannedKernel]) -> list[Doubt]:
    """Return what is known of planned kernels, which are told by their places."""
    return _doubts((place, known.of(one.reached.slot, one.reached.key_fields)) for place, one in enumerate(kernels))


def doubts_of_build(known: KnownBad, root: Root, toolchain: Toolchain, spec_digest: str, target: Target) -> list[Doubt]:
    """Return what is known of the kernels that a build has put into a cache, or found there."""
    if not known:
        return []
    try:
        manifest = root.manifest(toolchain.id, spec_digest, target)
    except FAULTS:
        return []
    return doubts_of_cache(known, root, toolchain.id, manifest.kernels if manifest else ())


def doubts_of_cache(known: KnownBad, root: Root, toolchain: str, kernels: Iterable[KernelId]) -> list[Doubt]:
    """Return what is known of kernels of a cache. What can't be read is passed over: others say that."""
    if not known:
        return []
    found: list[tuple[KernelId, list[Entry]]] = []
    for kernel in kernels:
        record = root.find_record(toolchain, kernel)
        if not isinstance(record, Miss):
            found.append((kernel, known.of(record.slot, record.key_fields)))
    return _doubts(found)


def _doubts(found: Iterable[tuple[KernelId | int, Sequence[Entry]]]) -> list[Doubt]:
    kernels: dict[str, list[KernelId | int]] = {}
    entries: dict[str, Entry] = {}
    for kernel, hits in found:
        for entry in hits:
            entries[entry.id] = entry
            kernels.setdefault(entry.id, []).append(kernel)
    return [Doubt(entry, kernels[name]) for name, entry in entries.items()]

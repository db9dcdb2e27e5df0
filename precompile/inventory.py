"""What of a spec is in a cache already."""

from __future__ import annotations

from dataclasses import dataclass

from ..cache.key import Facts, KernelId, kernel_id
from ..cache.manifest import Manifest
from ..cache.record import Record
from ..cache.store import Finding, Hit, Miss, MissReason, Root
from ..cache.target import Target
from ..cache.toolchain import Toolchain
from ..errors import UntrustedError
from .plan import PlannedKernel
from .spec import Spec


def find_planned(root: Root, toolchain: Toolchain, target: Target, planned: PlannedKernel) -> Hit | Miss:
    """Return a planned kernel from the cache, in the order that a job looks: for any device, then for the target's."""
    miss = Miss(MissReason.ABSENT, "")
    for kernel in candidate_ids(toolchain, target, planned):
        found = root.find(toolchain.id, kernel)
        if isinstance(found, Hit):
            return found
        if found.reason is not MissReason.ABSENT or not miss.detail:
            miss = found
    return miss


def candidate_ids(toolchain: Toolchain, target: Target, planned: PlannedKernel) -> list[KernelId]:
    """Return the ids that a planned kernel can have: it is not known before it is compiled what it asks the device."""
    asked: list[Facts] = [{}, {"sms": target.sms}]
    reached = planned.reached
    return [kernel_id(toolchain.id, target.arch, reached.slot, reached.key, facts) for facts in asked]


@dataclass(frozen=True)
class Present:
    """A finished build: its manifest, and its records, each with verified bytes."""

    manifest: Manifest
    records: tuple[Record, ...]


def finished_build(root: Root, spec: Spec, target: Target, toolchain: Toolchain) -> Present | None:
    """Return the build of a spec if its manifest is complete and every kernel in it has the bytes that it states.

    Raises `UntrustedError` for a manifest that others could have written: one that is put there would not be trusted.

    Imports neither torch nor the provider: this is why a build with nothing to do takes no time.
    """
    manifest = root.manifest(toolchain.id, spec.digest, target)
    if isinstance(manifest, Finding) and manifest.untrusted:
        raise UntrustedError(manifest.untrusted, manifest.problem)
    if not isinstance(manifest, Manifest) or not manifest.complete or toolchain not in root.toolchains():
        return None
    records = []
    for kernel in manifest.kernels:
        found = root.find(toolchain.id, kernel)
        if isinstance(found, Miss):
            return None
        records.append(found.record)
    return Present(manifest, tuple(records))

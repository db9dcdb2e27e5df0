"""What of a spec is in a cache already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..cache.key import Facts, KernelId, kernel_id
from ..cache.manifest import Manifest
from ..cache.outcome import FAULTS, Miss
from ..cache.record import Record
from ..cache.store import Root
from ..cache.target import Target, host_machine
from ..cache.toolchain import Toolchain
from ..errors import UntrustedError
from .shard import Shard
from .spec.spec import Spec

if TYPE_CHECKING:  # what plans imports what builds, and a finished build needs neither
    from .plan import PlannedKernel


def find_planned(root: Root, toolchain: Toolchain, target: Target, planned: PlannedKernel) -> Record | None:
    """Return a planned kernel from the cache, in the order that a job looks: for any device, then for the target's.

    Raises `UntrustedError` if it is not to be had because others could have written it: what a build puts there would
    not be trusted either.
    """
    untrusted = None
    for kernel in candidate_ids(toolchain, target, planned):
        try:
            return root.read(toolchain.id, kernel).record
        except UntrustedError as error:
            untrusted = error
        except FAULTS:
            continue
    if untrusted is not None:
        raise untrusted
    return None


def candidate_ids(toolchain: Toolchain, target: Target, planned: PlannedKernel) -> list[KernelId]:
    """Return the ids that a planned kernel can have: it is not known before it is compiled what it asks the device."""
    reached = planned.reached
    asked: list[Facts] = [reached.facts, {**reached.facts, "sms": target.sms}]
    return [kernel_id(toolchain.id, target.arch, reached.slot, reached.key, facts) for facts in asked]


@dataclass(frozen=True)
class Present:
    """A finished build: its manifest, and its records, each with verified bytes."""

    manifest: Manifest
    records: tuple[Record, ...]


def finished_build(
    root: Root, spec: Spec, target: Target, toolchain: Toolchain, shard: Shard | None = None
) -> Present | None:
    """Return the build of a spec if its manifest is complete and every kernel in it has the bytes that it states.

    Of a `shard` it is complete if all that is not there is left to others of as many.

    Raises `UntrustedError` for a manifest that others could have written: one that is put there would not be trusted.

    None, too, if the spec names a function that its digest does not tell: what it is now, only a plan can say.

    Imports neither torch nor the provider: this is why a build with nothing to do takes no time.
    """
    if spec.sources.untold:
        return None
    try:
        manifest = root.manifest(toolchain.id, spec.digest, target)
    except UntrustedError:
        raise
    except FAULTS:
        return None
    if manifest is None or not _is_done(manifest, shard) or toolchain not in root.toolchains():
        return None
    # A cache of before had none, or it is gone; that for hosts of another kind is not here.
    if toolchain.machine == host_machine() and not root.has_library(toolchain.id):
        return None
    records = []
    for kernel in manifest.kernels:
        found = root.find_record(toolchain.id, kernel)
        if isinstance(found, Miss):
            return None
        records.append(found)
    return Present(manifest, tuple(records))


def _is_done(manifest: Manifest, shard: Shard | None) -> bool:
    if shard is None or manifest.failed:
        return manifest.complete
    return all(other != str(shard) and other.endswith(f"/{shard.of}") for other in manifest.left.values())

"""Kernels that others have built already: taken, and checked as if they had just been compiled, instead of compiled."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from ..cache import layout
from ..cache.contents import Contents, Entry
from ..cache.key import KernelId
from ..cache.kinds import MANIFEST, RECORD
from ..cache.manifest import Manifest
from ..cache.publish import Publisher
from ..cache.record import Record
from ..cache.target import Target
from ..cache.toolchain import Toolchain
from ..carry.receive import parsed, read_verified
from ..carry.source import Source
from ..errors import CarryError, ProductError, RefusedError
from ..products.cubin import read_cubin
from ..products.product import require_sound
from ..products.trial import Trial


@dataclass
class Lender:
    """A source of kernels, with its list of contents. Who made the list has been vouched for."""

    source: Source
    contents: Contents
    is_lost: bool = field(default=False, init=False)

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.source.name

    def has(self, toolchain: str, kernel: KernelId) -> bool:
        """Return whether a kernel is in its list."""
        return layout.record_path(toolchain, kernel) in self.contents.entries

    def manifest(self, toolchain: str, spec_digest: str, target: Target) -> Manifest | None:
        """Return a spec's manifest, None if it is not in the list. Raises as `read_verified`."""
        found = self.contents.entries.get(layout.manifest_path(toolchain, spec_digest, target))
        for entry, data in read_verified(self.source, [found] if found else []):
            return parsed(self.name, MANIFEST.parsed, entry, data)
        return None

    def kernels(self, toolchain: str, wanted: Collection[KernelId]) -> Iterator[tuple[Record, bytes]]:
        """Yield those of some kernels that it has, with their blobs. Raises as `read_verified`."""
        paths = (layout.record_path(toolchain, kernel) for kernel in wanted)
        entries = [self.contents.entries[path] for path in paths if path in self.contents.entries]
        by_blob: dict[Entry, list[Record]] = {}
        for entry, data in read_verified(self.source, entries):
            record = parsed(self.name, RECORD.parsed, entry, data)
            blob = self.contents.entries.get(layout.blob_path(record.blob))
            if blob is None:
                raise RefusedError(self.name, f"`{entry.path}` names a blob that is not in its list of contents")
            by_blob.setdefault(blob, []).append(record)
        for entry, data in read_verified(self.source, list(by_blob)):
            for record in by_blob.pop(entry):
                yield record, data


class Borrower:
    """Takes kernels from lenders, in their order, into a cache.

    A lender that can't be reached any more is told of, and not asked again: what it does not give is compiled.
    """

    def __init__(
        self, lenders: Sequence[Lender], publisher: Publisher, target: Target, trial: Trial, say: Callable[[str], None]
    ) -> None:
        self.taken: dict[KernelId, Record] = {}
        self._lenders = lenders
        self._publisher = publisher
        self._target = target
        self._trial = trial
        self.say = say

    def manifest(self, toolchain: Toolchain, spec_digest: str) -> Manifest | None:
        """Return the manifest of a complete build of a spec, of the first lender that has one."""
        for lender in self._reached():
            with _told(lender, self.say):
                manifest = lender.manifest(toolchain.id, spec_digest, self._target)
                if manifest is not None and manifest.complete:
                    return manifest
        return None

    def take(self, toolchain: Toolchain, wanted: Collection[KernelId]) -> dict[KernelId, Record]:
        """Publish those of some kernels that lenders have, each once it has been checked, and return their records."""
        found: dict[KernelId, Record] = {}
        for lender in self._reached():
            left = [kernel for kernel in wanted if kernel not in found and lender.has(toolchain.id, kernel)]
            with _told(lender, self.say):
                for record, blob in lender.kernels(toolchain.id, left):
                    if self._is_sound(lender, record, blob):
                        self._publisher.publish(record, blob)
                        found[record.id] = record
        self.taken |= found
        return found

    def _reached(self) -> Iterator[Lender]:
        return (lender for lender in self._lenders if not lender.is_lost)

    def _is_sound(self, lender: Lender, record: Record, blob: bytes) -> bool:
        try:
            require_sound(blob, record.symbol, read_cubin(blob).sm, self._target)
            self._trial.require_loads(blob, record.symbol)
        except ProductError as error:
            self.say(f"kernel {record.id[:12]} of `{lender.name}` is not taken: {error}")
            return False
        return True


@contextmanager
def _told(lender: Lender, say: Callable[[str], None]) -> Iterator[None]:
    """Tell that a lender was lost, and go on without it."""
    try:
        yield
    except CarryError as error:
        lender.is_lost = True
        say(f"{error}; what it has is compiled")

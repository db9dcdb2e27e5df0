"""Mending a cache: what is damaged goes, and what misses a part of it, so that a build makes it again.

Guarantees
    Nothing goes that is as it should be. What is not trusted, or can't be read, stays, and all that depends on what is
    in it: it is told. What goes first is what names other files, so a cache that this was killed in is no worse.
Concurrency
    Any number of readers and builders: what a builder has replaced since it was found damaged stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from . import layout
from .claims import Claim, wrong_blobs
from .deleter import deleting, require_unsealed
from .gc import Dropped
from .holdings import Held, find_holdings, is_beside, record_of
from .kinds import MANIFEST
from .manifest import Manifest
from .outcome import FAULTS, Finding, MissReason
from .publish import Publisher
from .record import MOST_BLOB_BYTES
from .store import Root
from .toolchain import Toolchain
from .trust import opened_folder

_Item = TypeVar("_Item")

_MANIFEST_NAME = re.compile(r"manifests/(?P<toolchain>[^/]+)/(?P<digest>[^.]+)\.(?P<target>.+)-[0-9a-f]{8}\.json")


class Rebuild(NamedTuple):
    """A build that a cache had and has no more. `spec` is empty if only the first digits of its digest are known."""

    spec: str
    spec_digest: str
    target: str
    toolchain: str


@dataclass(frozen=True)
class Repaired:
    """What went, or would go, what has to be built again, and what is wrong and stays.

    `written` are ids of toolchains whose files were lost, and are written again. `changed` are files that others have
    changed since they were looked at.
    """

    dropped: tuple[Dropped, ...]
    kernels: int
    written: tuple[str, ...]
    rebuild: tuple[Rebuild, ...]
    remaining: tuple[Finding, ...]
    changed: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """How many bytes the files that went have together."""
        return sum(one.size for one in self.dropped)


def repair_root(root: Root, is_real: bool, installed: Sequence[Toolchain] = ()) -> Repaired:
    """Delete what is not as it should be; unless it `is_real`, only say what.

    `installed` are toolchains that are known otherwise: their files are written again, and their kernels stay.

    Raises `CacheError` for a sealed cache, `UntrustedError` for one that is refused as a whole, `MachineError` if the
    operating system refuses.
    """
    require_unsealed(root, "pull it again, or build it anew in another folder")
    root.require_layout()
    diagnosis = _Diagnosis(root, {toolchain.id for toolchain in installed})
    diagnosis.look()
    written = [toolchain for toolchain in installed if toolchain.id in diagnosis.lost]
    treatment = _Treatment(root, diagnosis)
    if is_real:
        for toolchain in written:
            Publisher(root).publish_toolchain(toolchain)
        with deleting(root) as deleter:
            treatment.run(lambda held: deleter.delete(held, lambda now: now.identity == held.identity))
    else:
        treatment.run(lambda _: True)
    gone = [one.path for one in treatment.dropped]
    return Repaired(
        dropped=tuple(treatment.dropped),
        kernels=sum(path.startswith("records/") for path in gone),
        written=tuple(toolchain.id for toolchain in written),
        rebuild=tuple(dict.fromkeys(diagnosis.rebuild(path) for path in gone if path.startswith("manifests/"))),
        remaining=tuple(dict.fromkeys(diagnosis.remaining)),
        changed=tuple(treatment.changed),
    )


class _Treatment:
    def __init__(self, root: Root, diagnosis: _Diagnosis) -> None:
        self.dropped: list[Dropped] = []
        self.changed: list[str] = []
        self._root = root
        self._diagnosis = diagnosis

    def run(self, delete: Callable[[Held], bool]) -> None:
        """Drop what has to go. `delete` says whether a file is gone."""
        for path, reason in self._diagnosis.in_order():
            held = self._diagnosis.held(path)
            if held is not None and delete(held):
                self.dropped.append(Dropped(path, held.size, reason))
            elif self._root.has_file(path):
                self.changed.append(path)


class _Diagnosis:
    """What is wrong in a cache.

    `bad` are the files that have to go, with the reason; `lost` are the toolchains whose files have to be written.
    """

    def __init__(self, root: Root, installed: Set[str]) -> None:
        self.bad: dict[str, str] = {}
        self.lost: set[str] = set()
        self.remaining: list[Finding] = []
        # Before anything is read: what is replaced meanwhile is another file then.
        self._holdings = find_holdings(root)
        self._root = root
        self._installed = installed
        self._manifests: dict[str, Manifest] = {}

    def look(self) -> None:
        """Look at every file."""
        self.remaining += self._holdings.faults
        toolchains = {layout.toolchain_path(item.id) for item in self._sound(self._root.toolchains())}
        claims = list(map(Claim.of, self._sound(self._root.records())))
        self._look_at_kernels(claims, toolchains)
        right = {layout.blob_path(claim.blob) for claim in claims if claim.path not in self.bad}
        self._look_at_blobs(right | self._look_at_libraries())
        self._look_at_manifests({claim.path for claim in claims if claim.path not in self.bad})
        for _ in self._sound((*self._root.origins(), *self._root.certificates())):
            continue
        for path in self._holdings.files:
            if is_beside(path) and self._is_gone(record_of(path)):
                self.bad[path] = "its kernel is gone"

    def held(self, path: str) -> Held | None:
        """Return a file as it was seen first, None if it was not there then."""
        return self._holdings.files.get(path) or self._holdings.strays.get(path)

    def in_order(self) -> list[tuple[str, str]]:
        """Return what has to go, with the reason, so that nothing is there without what it names."""
        order = ("manifests", "records", "origins", "certificates", "libraries", "toolchains", "blobs")
        return sorted(self.bad.items(), key=lambda item: (order.index(item[0].partition("/")[0]), item[0]))

    def rebuild(self, path: str) -> Rebuild:
        """Return what a manifest that is bad was of: by what it says, or by its name."""
        manifest = self._manifests.get(path)
        if manifest is not None:
            return Rebuild(manifest.spec, manifest.spec_digest[:32], manifest.target.name, manifest.toolchain)
        found = _MANIFEST_NAME.fullmatch(path)
        toolchain, digest, target = found.group("toolchain", "digest", "target") if found else ("", "", "")
        same = (other.spec for other in self._manifests.values() if other.spec_digest.startswith(digest or "?"))
        return Rebuild(next(same, ""), digest, target, toolchain)

    # How it is done

    def _sound(self, items: Iterable[_Item | Finding]) -> Iterable[_Item]:
        """Yield the items that are as they should be, and take down the others."""
        for item in items:
            if not isinstance(item, Finding):
                yield item
            elif item.reason is MissReason.DAMAGED:
                self.bad[item.path] = item.problem
            else:
                self.remaining.append(item)

    def _look_at_kernels(self, claims: list[Claim], toolchains: set[str]) -> None:
        wrong = wrong_blobs(self._root, claims, whole=True)
        for claim in claims:
            is_lost = self._has_lost(claim.toolchain, toolchains)
            if is_lost and claim.toolchain not in self._installed:
                self.bad[claim.path] = f"its toolchain {claim.toolchain} is not in the cache"
            elif fault := wrong.get(claim):
                self._take_blob_fault(claim.path, layout.blob_path(claim.blob), fault)
            elif is_lost:
                self.lost.add(claim.toolchain)
        for toolchain in self.lost:
            self.bad.pop(layout.toolchain_path(toolchain), None)

    def _has_lost(self, toolchain: str, toolchains: set[str]) -> bool:
        path = layout.toolchain_path(toolchain)
        return path not in toolchains and self._is_gone(path)

    def _take_blob_fault(self, path: str, blob: str, fault: Finding) -> None:
        """Take down what is wrong with the blob of a record or library."""
        if fault.reason is MissReason.DAMAGED:
            self.bad[path] = f"its blob `{blob}` {fault.problem}"
        else:
            self.remaining.append(fault)

    def _look_at_libraries(self) -> set[str]:
        """Return the blobs that are right."""
        right = set()
        claims = list(map(Claim.of, self._sound(self._root.libraries())))
        wrong = wrong_blobs(self._root, claims, whole=True)
        for claim in claims:
            blob = layout.blob_path(claim.blob)
            if fault := wrong.get(claim):
                self._take_blob_fault(claim.path, blob, fault)
            else:
                right.add(blob)
        return right

    def _look_at_blobs(self, right: set[str]) -> None:
        """Read the blobs that no sound record names, and those of damaged ones, which can be right."""
        for path in self._holdings.files:
            if path.startswith("blobs/") and path not in right and self._is_damaged(path):
                self.bad[path] = "its bytes do not have the digest that is its name"

    def _is_damaged(self, path: str) -> bool:
        with (
            suppress(*FAULTS),
            opened_folder(self._root.path, self._root.trust) as root,
            root.below(path) as (folder, name),
        ):
            return folder.size(name) > MOST_BLOB_BYTES or folder.digest(name, MOST_BLOB_BYTES)[1] != name
        return False

    def _look_at_manifests(self, records: set[str]) -> None:
        for manifest in self._sound(self._root.manifests()):
            path = MANIFEST.place(manifest)
            self._manifests[path] = manifest
            named = {layout.record_path(manifest.toolchain, kernel) for kernel in manifest.kernels}
            if missing := [one for one in named - records if self._is_gone(one)]:
                self.bad[path] = f"{len(missing)} of its {len(manifest.kernels)} kernels are missing or damaged"

    def _is_gone(self, path: str) -> bool:
        """Return whether a file is not there, or has to go. What is in a place that can't be looked at may be there."""
        if path in self.bad:
            return True
        hidden = any(path == one.path or path.startswith(f"{one.path}/") or one.path == "." for one in self.remaining)
        return not hidden and path not in self._holdings.files and not self._root.has_file(path)

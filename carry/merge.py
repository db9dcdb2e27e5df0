"""Merging places that each have a part of the same builds into one root.

Guarantees
    Whatever the order of the places, and however often it is done, the root comes to have the same files. Builds that
    were not planned alike are refused before anything is written. Each file is verified and published as `receive`
    does, and a build's manifest after all that it names: a merge that was interrupted goes on when it is called again.
Concurrency
    Beside builders and readers of the root. A manifest is put together while others of the same build wait.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from ..cache import layout
from ..cache.contents import Contents, Entry
from ..cache.key import KernelId
from ..cache.kinds import CERTIFICATE, MANIFEST, parse_file
from ..cache.library import Library
from ..cache.manifest import Manifest
from ..cache.origin import Origin
from ..cache.outcome import FAULTS, Miss
from ..cache.publish import Publisher
from ..cache.record import Record
from ..cache.store import Root
from ..cache.turns import one_manifest_at_a_time
from ..errors import CacheError, CarryError, RefusedError
from .receive import parsed, read_verified, receive, require_sound
from .root import RootSource
from .source import Source
from .united import difference, unaccounted, united

_PLANNED_ALIKE = (
    "build all shards of a spec with the same installation, and merge them into a new folder; a shard that could not "
    "ask about all calls is built again"
)


@dataclass(frozen=True)
class Place:
    """A source, and its list of contents. Who made the list has been vouched for."""

    source: Source
    contents: Contents


@dataclass(frozen=True)
class Merged:
    """What a merge has done.

    Attributes:
        came, bytes: files that were not there yet, and their size.
        others: kernels of which there were several with different bytes, so that one was kept.
        builds: the manifests that places brought, as they are in the root now.
    """

    came: int
    bytes: int
    others: int
    builds: Sequence[Manifest]


def merge(
    places: Sequence[Place],
    root: Root,
    say: Callable[[str], None],
    arrived: Callable[[int], None] = lambda size: None,
) -> Merged:
    """Put what some places have into a root, and put the builds together that they have parts of.

    `arrived` is told the size of each file that came. Raises `RefusedError` for builds that were not planned alike,
    `CacheError` for a root that is sealed, and what `receive` raises.
    """
    if root.is_sealed:
        raise CacheError(
            str(root.path),
            "is sealed, so nothing is merged into it",
            f"merge into a new folder, with `{root.path}` as one of the places",
        )
    brought = _builds(places)
    _require_alike(root, brought)
    publisher = Publisher(root)
    publisher.create()
    choice = _Choice(root, places)
    came = [receive(place.source, publisher, choice.wanted(place), arrived) for place in places]
    for place in places:
        _bring_what_is_beside(place, publisher)
    builds = [_publish_united(publisher, [one for _, one in parts], say) for parts in brought.values()]
    return Merged(sum(one.came for one in came), sum(one.bytes for one in came), choice.others, builds)


# What there is to put together

_Brought = Mapping[str, Sequence[tuple[str, Manifest]]]
"""Manifests by path, each with the name of the place that has it."""


def _builds(places: Sequence[Place]) -> _Brought:
    found: dict[str, list[tuple[str, Manifest]]] = defaultdict(list)
    for place in places:
        for entry, data in read_verified(place.source, list(place.contents.of_kind("manifests"))):
            item = require_sound(place.source.name, entry, data, place.contents.has)
            if isinstance(item, Manifest):
                found[entry.path].append((place.source.name, item))
    return dict(sorted(found.items()))


def _require_alike(root: Root, brought: _Brought) -> None:
    """Raise `RefusedError` unless all parts of a build, also the one that is there, were planned alike."""
    there = {MANIFEST.place(item): item for item in root.manifests() if isinstance(item, Manifest)}
    for path, parts in brought.items():
        first, *others = [*([(str(root.path), there[path])] if path in there else []), *parts]
        for name, manifest in others:
            if words := difference(first[1], manifest):
                what = f"{_called(manifest)} was not planned as that of `{first[0]}`"
                raise RefusedError(name, f"{what}: {words}", _PLANNED_ALIKE)
        if words := unaccounted([manifest for _, manifest in [first, *others]]):
            what = f"{_called(first[1])} does not go with those of the others: {words}"
            raise RefusedError(first[0], what, _PLANNED_ALIKE)


# Which files are taken


class _Choice:
    """Which files of each place a root is to have, where several have files of one path with other bytes.

    What is there and sound stays; else it is the first by digest, so that the order of the places does not matter.
    `others` counts the kernels of which one was chosen.
    """

    def __init__(self, root: Root, places: Sequence[Place]) -> None:
        by_path: dict[str, set[Entry]] = defaultdict(set)
        for place in places:
            for entry in place.contents.entries.values():
                if entry.kind not in ("blobs", "manifests"):
                    by_path[entry.path].add(entry)
        here = root.present(entry for entries in by_path.values() for entry in entries)
        self.others = 0
        self._taken: dict[str, Entry | None] = {}
        for path, entries in by_path.items():
            there = next((entry for entry in entries if entry in here), None)
            stays = there is None and _is_sound(root, path)
            self.others += path.startswith("records/") and (stays or len(entries) > 1)
            self._taken[path] = None if stays else there or min(entries)

    def wanted(self, place: Place) -> Contents:
        """Return what is to come from a place, without its manifests, which are put together."""
        wanted = place.contents.only(lambda entry: entry.kind != "manifests")
        taken = wanted.only(lambda entry: entry.kind == "blobs" or self._taken[entry.path] == entry)
        if len(taken.entries) == len(wanted.entries):
            return wanted
        naming = [entry for entry in taken.entries.values() if entry.kind in ("records", "libraries")]
        items = [parsed(place.source.name, parse_file, *read) for read in read_verified(place.source, naming)]
        named = {layout.blob_path(item.blob) for item in items if isinstance(item, (Record, Library))}
        return taken.only(lambda entry: entry.kind != "blobs" or entry.path in named)


def _is_sound(root: Root, path: str) -> bool:
    """Return whether a root has something of its own at a path, and it is as it should be."""
    if not root.has_file(path):
        return False
    kind, toolchain, *_, name = path.removesuffix(".json").split("/")
    if kind == "records":
        return not isinstance(root.find_record(toolchain, KernelId(name)), Miss)
    # The name of a toolchain is a digest of all that it says.
    return kind == "libraries" and root.has_library(name)


# What is put together at the end


def _publish_united(publisher: Publisher, parts: Sequence[Manifest], say: Callable[[str], None]) -> Manifest:
    """Publish what some manifests of one build, and the one that is there, come to. Returns it."""
    one, root = parts[0], publisher.root
    with one_manifest_at_a_time(publisher, one.spec_digest, one.target, one.toolchain, say):
        there = _whole_one(root, one, {kernel for part in parts for kernel in part.kernels})
        if there is not None and (words := difference(one, there)):  # from a build that ended meanwhile
            raise RefusedError(str(root.path), f"{_called(one)} was built otherwise meanwhile: {words}", _PLANNED_ALIKE)
        every = [*parts, *([there] if there else [])]
        if words := unaccounted(every):
            raise RefusedError(str(root.path), f"{_called(one)} contradicts itself: {words}", _PLANNED_ALIKE)
        whole = united(every)
        named = [layout.record_path(whole.toolchain, kernel) for kernel in whole.kernels]
        if lost := [path for path in named if not publisher.confirm(path)]:
            raise CarryError(str(root.path), f"`{lost[0]}` was deleted before all had arrived")
        if there != whole or not publisher.confirm(MANIFEST.place(whole)):
            publisher.publish_manifest(whole)
            publisher.sync()
    return whole


def _whole_one(root: Root, one: Manifest, brought: Collection[KernelId]) -> Manifest | None:
    """Return the manifest that a root has of a build, if the kernels in it are sound; those brought now are.

    One that is damaged, or names what is not there, proves nothing: it is replaced.
    """
    try:
        there = root.manifest(one.toolchain, one.spec_digest, one.target)
    except FAULTS:
        return None
    rest = [kernel for kernel in there.kernels if kernel not in brought] if there else []
    return None if any(isinstance(root.find_record(one.toolchain, kernel), Miss) for kernel in rest) else there


def _bring_what_is_beside(place: Place, publisher: Publisher) -> None:
    """Publish where the kernels of a folder come from and how they ran, as far as it is told there and not here.

    No list vouches for it: it is for people and for estimates, and only the owner's own folders are asked.
    """
    if not isinstance(place.source, RootSource):
        return
    root = publisher.root
    publisher.publish_files(
        (Entry(path, hashlib.sha256(data).hexdigest(), len(data)), data)
        for origin in place.source.origins()
        if not isinstance(root.origin(origin.toolchain, origin.kernel), Origin)
        and root.has_file(layout.record_path(origin.toolchain, origin.kernel))
        for path, data in [(layout.origin_path(origin.toolchain, origin.kernel), origin.render_file())]
    )
    here = {CERTIFICATE.place(one): one.when for one in RootSource(root).certificates()}
    publisher.publish_files(
        (Entry(path, hashlib.sha256(data).hexdigest(), len(data)), data)
        for one in place.source.certificates()
        if root.has_file(layout.record_path(one.toolchain, one.kernel))
        for path, data in [(CERTIFICATE.place(one), one.render_file())]
        if here.get(path, "") < one.when  # the last stays, whatever the order of the places
    )


def _called(manifest: Manifest) -> str:
    return f"its build of {manifest.spec} for {manifest.target.name}"

"""Keeping a cache small: which builds go, and all that nothing names once they are gone.

A build is a manifest. Its age is that of the manifest's file, which a build writes, and confirms when it has nothing to
do. A kernel that no manifest names (a job stored it, or a build was interrupted) is judged by itself, and goes only by
age or size.

Guarantees
    What goes first is what names other files: manifests, then records, then blobs. So a cache that this was killed in
    is whole, and a reader sees a kernel, or a miss. Nothing goes that was written or confirmed within the hour, none of
    what a manifest or record that stays names, and nothing that is not of this layout. If a part of the cache is
    damaged, not trusted or can't be read, nothing goes: what it names is not known.
Not guaranteed
    That two machines whose clocks differ by an hour agree on what is an hour old. That kernels of a build which was
    dropped go if this is killed half-way: then they belong to no build.
Concurrency
    Any number of readers and builders. Who publishes what names a file that was there already confirms it first
    (`Publisher.confirm`), and finds out if it is gone; from then on it stays for an hour. Before a manifest is
    published, all that it names is confirmed once more. What is confirmed between our look and our deleting is put
    back. The hour ends when we start, so what is written from then on stays however long we take.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from ..errors import RecordError
from . import layout
from .claims import Claim
from .deleter import SAFE_S, deleting, require_unsealed
from .holdings import Held, Holdings, find_holdings, record_of
from .kinds import BESIDE, LIBRARY, MANIFEST
from .library import Library
from .manifest import Manifest
from .outcome import Finding, MissReason, error_of
from .store import Root

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Limits:
    """What may stay.

    Attributes:
        most_bytes: how large the cache may be; the oldest go until the rest fits.
        most_seconds: how long ago what stays was last built.
        newest: how many builds of each spec's name and target.
        is_kept: whether a build is never dropped.
    """

    most_bytes: int | None = None
    most_seconds: float | None = None
    newest: int | None = None
    is_kept: Callable[[Manifest], bool] = lambda _: False


class Dropped(NamedTuple):
    """A file that went, or would go, and why."""

    path: str
    size: int
    reason: str


class Build(NamedTuple):
    """A build, and when it was last done or confirmed, in seconds since 1970."""

    manifest: Manifest
    path: str
    built: float


@dataclass(frozen=True)
class Collected:
    """What went, or would go, and what is left. `fits` is false if the rest is larger than it was to be."""

    dropped: tuple[Dropped, ...]
    builds: tuple[Build, ...]
    kernels: int
    left_builds: int
    left_kernels: int
    left_bytes: int
    fits: bool

    @property
    def bytes(self) -> int:
        """How many bytes the files that went have together."""
        return sum(one.size for one in self.dropped)


def collect(root: Root, limits: Limits, is_real: bool) -> Collected:
    """Delete what may not stay, and what nothing names; unless it `is_real`, only say what.

    Raises `CacheError` for a sealed cache, `UntrustedError` or `RecordError` for one that is not whole, `MachineError`
    if the operating system refuses.
    """
    require_unsealed(root, "make a new one of what you need, and seal that")
    root.require_layout()
    started = time.time()
    stock = _take_stock(root)

    def is_old(held: Held) -> bool:
        return held.changed < started - SAFE_S

    goes = _chosen(stock, limits, started, is_old)
    if not is_real:
        sweep = _Sweep(stock, is_old)
        sweep.run(goes)
    else:
        with deleting(root) as deleter:
            sweep = _Sweep(stock, lambda held: deleter.delete(held, is_old))
            sweep.run(goes)
            for folder in stock.holdings.folders:
                deleter.remove_folder(folder)
    return _collected(stock, sweep, limits)


class _Stock(NamedTuple):
    """What is in a cache: its files, and what those that name others say, by path."""

    holdings: Holdings
    manifests: Mapping[str, Manifest]
    claims: Mapping[str, Claim]
    libraries: Mapping[str, Library]


def _take_stock(root: Root) -> _Stock:
    """Return what is in a cache. Raises if not all of it can be known.

    Of the files first, of what they say after: of what a builder replaces meanwhile, only the age is known too old.
    """
    holdings = find_holdings(root)
    faults = list(holdings.faults)

    def sound(items: Iterable[_Item | Finding]) -> Iterable[_Item]:
        for item in items:
            if isinstance(item, Finding):
                faults.append(item)
            else:
                yield item

    stock = _Stock(
        holdings,
        {MANIFEST.place(item): item for item in sound(root.manifests())},
        {claim.path: claim for claim in map(Claim.of, sound(root.records()))},
        {LIBRARY.place(item): item for item in sound(root.libraries())},
    )
    for fault in sorted(faults, key=lambda fault: not fault.untrusted):
        if fault.reason is MissReason.DAMAGED:
            hint = f"`fa4-precompile repair --cache {root.path}` drops what is damaged; until then nothing is deleted"
            raise RecordError(fault.path, fault.problem, hint)
        raise error_of(fault)
    return stock


def _chosen(stock: _Stock, limits: Limits, now: float, is_old: Callable[[Held], bool]) -> list[str]:
    """Return the manifests that may not stay, and the records of kernels of no build, by path."""
    files = stock.holdings.files
    named = _records_of(stock.manifests.values())
    kept = {path for path, manifest in stock.manifests.items() if limits.is_kept(manifest)}
    units = (stock.manifests.keys() - kept) | (stock.claims.keys() - named)
    oldest_first = sorted((files[path] for path in units & files.keys()), key=lambda held: (held.changed, held.path))
    outnumbered = _outnumbered(stock, limits.newest)
    goes: list[str] = []
    others: list[str] = []
    for held in filter(is_old, oldest_first):
        is_outlived = limits.most_seconds is not None and held.changed < now - limits.most_seconds
        (goes if is_outlived or held.path in outnumbered else others).append(held.path)
    return goes + others[: _how_many(stock, goes, others, limits.most_bytes, is_old)]


def _outnumbered(stock: _Stock, newest: int | None) -> set[str]:
    """Return the manifests of which there are so many newer ones, for the same spec's name and target."""
    if newest is None:
        return set()
    ages: dict[object, list[tuple[float, str]]] = {}
    for path, manifest in stock.manifests.items():
        if path in stock.holdings.files:
            age = -stock.holdings.files[path].changed, path
            ages.setdefault((manifest.spec, manifest.target), []).append(age)
    return {path for group in ages.values() for _, path in sorted(group)[newest:]}


def _how_many(
    stock: _Stock, goes: list[str], others: list[str], most: int | None, is_old: Callable[[Held], bool]
) -> int:
    """Return how many of the others have to go so that the rest fits: all of them if it never does."""
    few, many = 0, 0 if most is None else len(others)
    while few < many:
        middle = (few + many) // 2
        sweep = _Sweep(stock, is_old)
        sweep.run(goes + others[:middle])
        if stock.holdings.size - sum(one.size for one in sweep.dropped.values()) <= (most or 0):
            many = middle
        else:
            few = middle + 1
    return few


class _Sweep:
    """Drops files in an order in which nothing is there without what it names. `delete` says whether one is gone."""

    def __init__(self, stock: _Stock, delete: Callable[[Held], bool]) -> None:
        self.dropped: dict[str, Dropped] = {}
        self._stock = stock
        self._delete = delete

    def run(self, goes: Iterable[str]) -> None:
        """Drop manifests and kernels of no build, by path, and all that nothing names then.

        What could not be deleted is there, and names what it names.
        """
        stock, goes = self._stock, set(goes)
        doomed = {path: manifest for path, manifest in stock.manifests.items() if path in goes}
        for path, manifest in doomed.items():
            self._drop(path, f"{manifest.spec} for {manifest.target.name}")
        manifests = [manifest for path, manifest in stock.manifests.items() if path not in self.dropped]
        without_build = (_records_of(doomed.values()) | (goes - doomed.keys())) - _records_of(manifests)
        self._drop_all(stock.claims.keys() & without_build, "a kernel of no build that stays")
        claims = [claim for path, claim in stock.claims.items() if path not in self.dropped]
        records = {claim.path for claim in claims}
        toolchains = {claim.toolchain for claim in claims} | {manifest.toolchain for manifest in manifests}
        for kind in BESIDE:
            self._drop_others(kind.folder, lambda path: record_of(path) in records, "its kernel is gone")
        named = {layout.library_path(toolchain) for toolchain in toolchains}
        self._drop_others("libraries", named.__contains__, "no kernel is of its toolchain")
        named = {layout.toolchain_path(toolchain) for toolchain in toolchains}
        self._drop_others("toolchains", named.__contains__, "no kernel is of it")
        libraries = [library for path, library in stock.libraries.items() if path not in self.dropped]
        named = {layout.blob_path(claim.blob) for claim in claims}
        named |= {layout.blob_path(library.blob) for library in libraries}
        self._drop_others("blobs", named.__contains__, "no record names it")
        for held in stock.holdings.temporaries:
            self._drop_held(held, "it was never finished")

    def _drop_others(self, kind: str, is_needed: Callable[[str], bool], reason: str) -> None:
        files = self._stock.holdings.files
        self._drop_all((path for path in files if path.startswith(f"{kind}/") and not is_needed(path)), reason)

    def _drop_all(self, paths: Iterable[str], reason: str) -> None:
        for path in sorted(paths):
            self._drop(path, reason)

    def _drop(self, path: str, reason: str) -> None:
        held = self._stock.holdings.files.get(path)
        if held is not None:  # else it came while we looked
            self._drop_held(held, reason)

    def _drop_held(self, held: Held, reason: str) -> None:
        if self._delete(held):
            self.dropped[held.path] = Dropped(held.path, held.size, reason)


def _records_of(manifests: Iterable[Manifest]) -> set[str]:
    return {layout.record_path(manifest.toolchain, kernel) for manifest in manifests for kernel in manifest.kernels}


def _collected(stock: _Stock, sweep: _Sweep, limits: Limits) -> Collected:
    dropped = sweep.dropped
    left = stock.holdings.size - sum(one.size for one in dropped.values())
    files = stock.holdings.files
    return Collected(
        dropped=tuple(dropped.values()),
        builds=tuple(
            Build(manifest, path, files[path].changed) for path, manifest in stock.manifests.items() if path in dropped
        ),
        kernels=len(stock.claims.keys() & dropped.keys()),
        left_builds=len(stock.manifests.keys() - dropped.keys()),
        left_kernels=len(stock.claims.keys() - dropped.keys()),
        left_bytes=left,
        fits=limits.most_bytes is None or left <= limits.most_bytes,
    )

"""Reading one cache directory.

Guarantees
    A kernel that `find` or `read` returns has the bytes that its record states, and the record the fields that were
    asked for. What can't be listed or read is a finding, or a miss with the reason: it is never passed over.
Concurrency
    Any number of readers beside any number of builders (`publish`), and of those who delete files. Readers take no lock
    and write nothing.
Security
    Integrity, not authenticity: who can write the cache can replace kernels. So files that others could have written
    are refused, and no more is read than a file of its kind can have (`trust`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from string import hexdigits
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from ..errors import CacheError, RecordError, UntrustedError
from . import layout
from .contents import Entry
from .kept import KeptFolders
from .key import BlobDigest, KernelId
from .kinds import LIBRARY, MANIFEST, ORIGIN, RECORD, TOOLCHAIN, Kind, Listed, listed
from .library import Library
from .manifest import Manifest
from .origin import Origin
from .outcome import FAULTS, Finding, Hit, Miss, finding_of, miss_of
from .record import Record, Reference
from .target import Target
from .toolchain import Toolchain
from .trust import Folder, Trust, opened_folder

_Found = TypeVar("_Found")


class Claim(NamedTuple):
    """What a record says of its blob. There can be many, and a record is large."""

    toolchain: str
    kernel: KernelId
    blob: BlobDigest
    blob_bytes: int

    @classmethod
    def of(cls, record: Record) -> Claim:
        """Return what a record claims."""
        return cls(record.toolchain, record.id, record.blob, record.blob_bytes)

    @property
    def record_path(self) -> str:
        """Return where the record is, relative to the root."""
        return layout.record_path(self.toolchain, self.kernel)


@dataclass
class Root:
    """One cache directory, as readers see it. Creating the object touches nothing."""

    path: Path
    trust: Trust = Trust.OWN
    # Found out once: every lookup of a job would read the file again.
    _layout_is_known: bool = field(default=False, init=False, repr=False, compare=False)
    _kept: KeptFolders | None = field(default=None, init=False, repr=False, compare=False)

    # One kernel

    def find(self, toolchain: str, kernel: KernelId) -> Hit | Miss:
        """Return as much of a kernel as loading it needs, or why there is none. Never raises for what is on disk."""
        return self._or_miss(lambda: self.read(toolchain, kernel), kernel)

    def find_record(self, toolchain: str, kernel: KernelId) -> Record | Miss:
        """Return the whole record of a kernel whose blob is right, or why there is none. Never raises, as `find`."""
        return self._or_miss(lambda: self.read(toolchain, kernel).record, kernel)

    def read(self, toolchain: str, kernel: KernelId) -> Hit:
        """Return as much of a kernel as loading it needs, its blob verified. Raises one of `FAULTS`."""
        kept = self._kept
        if kept is not None:
            try:
                return self._read(kept.folder(), kept.read, toolchain, kernel)
            except FAULTS:
                if kept.is_current():
                    raise
            # A folder was deleted, moved or closed meanwhile, and there may be another in its place.
            if self._kept is kept:
                self._kept = KeptFolders(self.path, self.trust)
        with opened_folder(self.path, self.trust) as folder:
            return self._read(folder, partial(_read, folder), toolchain, kernel)

    def keep_folders(self) -> None:
        """Keep open, from now on and until `close`, what `read` goes through: five folders, six with two toolchains."""
        if self._kept is None:
            self._kept = KeptFolders(self.path, self.trust)

    def close(self) -> None:
        """Close what `keep_folders` keeps open, as soon as nobody reads through it any more."""
        self._kept = None

    def has_library(self, toolchain: str) -> bool:
        """Return whether a toolchain's run-time library is here with the bytes that it states."""
        try:
            with opened_folder(self.path, self.trust) as folder:
                relative = layout.library_path(toolchain)
                library = Library.parse_file(relative, _read(folder, relative, layout.MOST_BYTES))
                with folder.below(layout.blob_path(library.blob)) as (inner, name):
                    found = inner.digest(name, library.blob_bytes)
                return library.toolchain == toolchain and found == (library.blob_bytes, library.blob)
        except FAULTS:
            return False

    def blob(self, record: Record | Library) -> bytes:
        """Return a record's blob, verified. Raises one of `FAULTS`."""
        with opened_folder(self.path, self.trust) as folder:
            return _verified(record, partial(_read, folder))

    def records_like(self, digits: str) -> Iterator[Record | Finding]:
        """Yield the records whose kernel id begins with some hexadecimal digits, as `records` does."""
        if digits and not set(digits) - set(hexdigits):
            yield from self._each(layout.RECORDS, RECORD, digits)

    # All that is there

    def require_layout(self) -> None:
        """Raise `CacheError` unless this is a cache of a layout that is known, `UntrustedError` if it is refused."""
        try:
            self.look_at_layout()
        except FileNotFoundError:
            raise CacheError(str(self.path), "does not exist", _HOW_TO_MAKE_ONE) from None
        except OSError as error:
            raise CacheError(str(self.path), f"can't be read: {error.strerror}", _HOW_TO_READ_IT) from None

    def look_at_layout(self) -> None:
        """Raise one of `FAULTS` unless this is a cache of a layout that is known."""
        with opened_folder(self.path, self.trust) as folder:
            self._require_layout(folder)

    def records(self) -> Iterator[Record | Finding]:
        """Yield every record by toolchain and kernel id; a `Finding` for what is damaged, untrusted or unreadable."""
        return self._each(layout.RECORDS, RECORD)

    def toolchains(self) -> Iterator[Toolchain | Finding]:
        """Yield every toolchain that has built into this cache; a `Finding` as `records` does."""
        return self._each(layout.TOOLCHAINS, TOOLCHAIN)

    def libraries(self) -> Iterator[Library | Finding]:
        """Yield the run-time library of every toolchain that has one here; a `Finding` as `records` does."""
        return self._each(layout.LIBRARIES, LIBRARY)

    def manifests(self) -> Iterator[Manifest | Finding]:
        """Yield every manifest; a `Finding` as `records` does."""
        return self._each(layout.MANIFESTS, MANIFEST)

    def origins(self) -> Iterator[Origin | Finding]:
        """Yield where kernels come from, as far as there are files of it; a `Finding` as `records` does."""
        return self._each(layout.ORIGINS, ORIGIN)

    def origin(self, toolchain: str, kernel: KernelId) -> Origin | Finding | None:
        """Return where a kernel comes from, None if no file says it. Never raises for what is on disk."""
        relative = layout.origin_path(toolchain, kernel)
        try:
            with opened_folder(self.path, self.trust) as folder:
                return ORIGIN.parsed(relative, _read(folder, relative, layout.MOST_BYTES))
        except FileNotFoundError:
            return None
        except FAULTS as error:
            return finding_of(error, self.path, relative)

    def listed(self) -> Iterator[Listed[Any] | Finding]:
        """Yield every JSON file that counts, with its line in the list of contents; a `Finding` as `records` does."""
        for pattern, kind in _PATTERNS.items():
            yield from self._each(pattern, listed(kind))

    def manifest(self, toolchain: str, spec_digest: str, target: Target) -> Manifest | None:
        """Return a spec's manifest, None if there is none. Raises one of `FAULTS`."""
        relative = layout.manifest_path(toolchain, spec_digest, target)
        try:
            with opened_folder(self.path, self.trust) as folder:
                manifest = Manifest.parse_file(relative, _read(folder, relative, layout.MOST_MANIFEST_BYTES))
        except FileNotFoundError:
            return None
        if (manifest.toolchain, manifest.spec_digest, manifest.target) != (toolchain, spec_digest, target):
            raise RecordError(relative, f"describes a build of {manifest.spec} that belongs elsewhere")
        return manifest

    def manifest_path(self, manifest: Manifest) -> Path:
        """Return where a manifest is."""
        return self.path / MANIFEST.place(manifest)

    def blob_path(self, record: Record) -> Path:
        """Return where a record's blob is."""
        return self.path / layout.blob_path(record.blob)

    def present(self, entries: Iterable[Entry]) -> set[Entry]:
        """Return those files of a list that are there with the bytes that it states. Never raises."""
        found: set[Entry] = set()
        by_folder = groupby(sorted(entries), key=lambda entry: entry.path.rpartition("/")[0])
        for above, group in by_folder:
            with (
                suppress(*FAULTS),
                opened_folder(self.path, self.trust) as root,
                root.below(f"{above}/?") as (folder, _),
            ):
                found |= {entry for entry in group if _is_as_listed(folder, entry)}
        return found

    def file(self, entry: Entry) -> bytes:
        """Return the bytes of a file of a list, not verified. Raises one of `FAULTS`."""
        with opened_folder(self.path, self.trust) as folder:
            return _read(folder, entry.path, entry.size)

    def has_file(self, relative: str) -> bool:
        """Return whether there is a file of a path, whatever is in it."""
        try:
            with opened_folder(self.path, self.trust) as root, root.below(relative) as (folder, name):
                return folder.size(name) >= 0
        except FAULTS:
            return False

    def wrong_blobs(self, claims: Iterable[Claim], whole: bool) -> dict[Claim, Finding]:
        """Return which blobs are not there, not trusted or not of their size, or if read as a `whole`, of their bytes.

        Each folder of blobs is opened once, not once a blob. Never raises for what is on disk.
        """
        found: dict[Claim, Finding] = {}
        by_folder = groupby(sorted(claims, key=lambda claim: claim.blob), key=lambda claim: claim.blob[:2])
        for _, group in by_folder:
            found |= self._wrong_in_folder(list(group), _require_bytes if whole else _require_size)
        return found

    # How it is done

    def _read(self, folder: Folder, read: Callable[[str, int], bytes], toolchain: str, kernel: KernelId) -> Hit:
        if not self._layout_is_known:
            self._require_layout(folder)
        relative = layout.record_path(toolchain, kernel)
        reference = Reference.parse_file(relative, read(relative, layout.MOST_BYTES))
        if reference.id != kernel or reference.toolchain != toolchain:
            raise RecordError(relative, f"describes another kernel, {reference.id}")
        return Hit(reference, _verified(reference, read))

    def _wrong_in_folder(self, claims: list[Claim], require: Callable[[Folder, Claim], None]) -> dict[Claim, Finding]:
        found: dict[Claim, Finding] = {}
        try:
            with (
                opened_folder(self.path, self.trust) as root,
                root.below(layout.blob_path(claims[0].blob)) as (folder, _),
            ):
                for claim in claims:
                    try:
                        require(folder, claim)
                    except FAULTS as error:
                        found[claim] = self._blob_finding(error, claim.blob)
        except FAULTS as error:  # on the way to them
            found = {claim: self._blob_finding(error, claim.blob) for claim in claims} | found
        return found

    def _blob_finding(self, error: RecordError | UntrustedError | CacheError | OSError, blob: BlobDigest) -> Finding:
        relative = layout.blob_path(blob)
        is_gone = isinstance(error, FileNotFoundError)
        return finding_of(RecordError(relative, _NO_BLOB) if is_gone else error, self.path, relative)

    def _or_miss(self, look: Callable[[], _Found], kernel: KernelId) -> _Found | Miss:
        try:
            return look()
        except FAULTS as error:
            return miss_of(error, self.path, f"record of kernel {kernel[:12]}")

    def _require_layout(self, folder: Folder) -> None:
        try:
            data = folder.read(layout.FORMAT, layout.MOST_BYTES)
        except FileNotFoundError:
            raise CacheError(str(self.path), "is no kernel cache", _HOW_TO_MAKE_ONE) from None
        except RecordError:
            data = b""
        if not layout.is_known(data):
            raise CacheError(
                str(self.path),
                f"its `{layout.FORMAT}` does not say layout {layout.LAYOUT}, the one that this version reads",
                "use the version of fa4-precompile that built it, or build a new cache",
            )
        self._layout_is_known = True

    def _each(self, pattern: str, kind: Kind[_Found], digits: str = "") -> Iterator[_Found | Finding]:
        """Yield the files of a kind, and what is wrong on the way to them.

        `digits` are those that the names of the files begin with.
        """
        try:
            with opened_folder(self.path, self.trust) as folder:
                yield from self._walk(folder, pattern.split("/"), kind, digits)
        except FAULTS as error:
            yield finding_of(error, self.path, ".")

    def _walk(self, folder: Folder, parts: list[str], kind: Kind[_Found], digits: str) -> Iterator[_Found | Finding]:
        first, *rest = parts
        names = folder.names() if first == "*" else [first]
        if not rest:
            names = [name for name in names if name.startswith(digits) and name.endswith(_ENDING)]
        for name in names:
            relative = f"{folder.relative}/{name}".removeprefix("/")
            try:
                if rest:
                    with folder.folder(name) as inner:
                        yield from self._walk(inner, rest, kind, digits)
                else:
                    yield kind.read(folder, name, relative)
            except FileNotFoundError:  # never made, or deleted since it was listed
                continue
            except NotADirectoryError as error:
                if _is_ours(name, folder):
                    yield finding_of(error, self.path, relative)
            except FAULTS as error:
                yield finding_of(error, self.path, relative)


def _is_ours(name: str, folder: Folder) -> bool:
    """Return whether a folder of this name was made here: at the top, and below it if it is called by digits."""
    return not folder.relative or not set(name) - set(hexdigits)


def _read(root: Folder, relative: str, most: int) -> bytes:
    with root.below(relative) as (folder, name):
        return folder.read(name, most)


def _verified(record: Record | Reference | Library, read: Callable[[str, int], bytes]) -> bytes:
    relative = layout.blob_path(record.blob)
    try:
        blob = read(relative, record.blob_bytes)
    except FileNotFoundError:
        raise RecordError(relative, _NO_BLOB) from None
    if len(blob) != record.blob_bytes or hashlib.sha256(blob).hexdigest() != record.blob:
        raise RecordError(relative, _WRONG_BLOB)
    return blob


def _is_as_listed(folder: Folder, entry: Entry) -> bool:
    try:
        return folder.digest(entry.path.rpartition("/")[2], entry.size) == (entry.size, entry.digest)
    except FAULTS:
        return False


def _require_size(folder: Folder, claim: Claim) -> None:
    if folder.size(claim.blob) != claim.blob_bytes:
        raise RecordError(layout.blob_path(claim.blob), _WRONG_BLOB)


def _require_bytes(folder: Folder, claim: Claim) -> None:
    if folder.digest(claim.blob, claim.blob_bytes) != (claim.blob_bytes, claim.blob):
        raise RecordError(layout.blob_path(claim.blob), _WRONG_BLOB)


_PATTERNS: Mapping[str, Kind[Any]] = MappingProxyType(
    {layout.TOOLCHAINS: TOOLCHAIN, layout.LIBRARIES: LIBRARY, layout.RECORDS: RECORD, layout.MANIFESTS: MANIFEST}
)
_ENDING = ".json"
_HOW_TO_MAKE_ONE = "`fa4-precompile build SPEC --cache DIR` makes one"
_HOW_TO_READ_IT = "let your user read it, or name another with `--cache DIR`"
_NO_BLOB = "is missing, though a record names it"
_WRONG_BLOB = "is damaged: its bytes do not have the digest that is its name"

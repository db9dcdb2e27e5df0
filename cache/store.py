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
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from string import hexdigits
from typing import Any, TypeVar

from ..errors import CacheError, RecordError
from . import layout
from .certificate import Certificate
from .contents import Contents, Entry
from .kept import KeptFolders
from .key import KernelId
from .kinds import CERTIFICATE, COUNTED, LIBRARY, MANIFEST, ORIGIN, RECORD, TOOLCHAIN, Kind, Listed, listed
from .library import Library
from .manifest import Manifest
from .origin import Origin
from .outcome import FAULTS, Finding, Hit, Miss, finding_of, miss_of
from .record import Record, Reference
from .seal import NOBODY, Seal, Vouchers, read_seal, read_signature
from .target import Target
from .toolchain import Toolchain
from .trust import Folder, Trust, opened_folder
from .walk import walk

_Found = TypeVar("_Found")


@dataclass
class Root:
    """One cache directory, as readers see it. Creating the object touches nothing."""

    path: Path
    trust: Trust = Trust.OWN
    vouchers: Vouchers = NOBODY
    # Found out once of a folder: every lookup of a job would read the files again.
    _folder: tuple[int, ...] = field(default=(), init=False, repr=False, compare=False)
    _layout_is_known: bool = field(default=False, init=False, repr=False, compare=False)
    _seal_is_known: bool = field(default=False, init=False, repr=False, compare=False)
    _seal: Seal | None = field(default=None, init=False, repr=False, compare=False)
    _kept: KeptFolders | None = field(default=None, init=False, repr=False, compare=False)
    name: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.name = str(self.path)

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
                self._kept = KeptFolders(self.path, self._reading)
                self._folder = ()
        with self.opened() as folder:
            return self._read(folder, partial(_read, folder), toolchain, kernel)

    def keep_folders(self) -> None:
        """Keep open, from now on and until `close`, what `read` goes through: five folders, six with two toolchains."""
        if self._kept is None:
            self._kept = KeptFolders(self.path, self._reading)

    def close(self) -> None:
        """Close what `keep_folders` keeps open, as soon as nobody reads through it any more."""
        self._kept = None

    def has_library(self, toolchain: str) -> bool:
        """Return whether a toolchain's run-time library is here with the bytes that it states."""
        try:
            with self.opened() as folder:
                relative = layout.library_path(toolchain)
                library = Library.parse_file(relative, self._data(partial(_read, folder), relative, layout.MOST_BYTES))
                with folder.below(layout.blob_path(library.blob)) as (inner, name):
                    found = inner.digest(name, library.blob_bytes)
                return library.toolchain == toolchain and found == (library.blob_bytes, library.blob)
        except FAULTS:
            return False

    def blob(self, record: Record | Library) -> bytes:
        """Return a record's blob, verified. Raises one of `FAULTS`."""
        with self.opened() as folder:
            return _verified(record, partial(_read, folder))

    def records_like(self, digits: str) -> Iterator[Record | Finding]:
        """Yield the records whose kernel id begins with some hexadecimal digits, as `records` does."""
        if digits and not set(digits) - set(hexdigits):
            yield from self._each(RECORD, digits)

    # All that is there

    @property
    def is_sealed(self) -> bool:
        """Whether there is a seal just now, whatever is in it."""
        return os.path.lexists(self.path / layout.SEAL)

    @property
    def sealed(self) -> Contents | None:
        """The list of a sealed root; None for one that is not. Raises one of `FAULTS`."""
        if not self._seal_is_known:
            with self.opened():
                pass
        return self._seal.contents if self._seal else None

    @property
    def is_new(self) -> bool:
        """Whether there is nothing yet: no folder, or an empty one. False where that can't be seen: others say why."""
        try:
            return not any(self.path.iterdir())
        except FileNotFoundError:
            return True
        except OSError:
            return False

    def signature(self) -> bytes:
        """Return the signatures over its seal; nothing for a root that is not sealed or signed. Raises `FAULTS`."""
        with self.opened() as folder:
            return read_signature(folder) if self._seal else b""

    def require_layout(self) -> None:
        """Raise `CacheError` unless this is a cache of a layout that is known, `UntrustedError` if it is refused."""
        try:
            self.look_at_layout()
        except FileNotFoundError:
            raise CacheError(str(self.path), "does not exist", _HOW_TO_MAKE_ONE) from None
        except OSError as error:
            hint = _HOW_TO_MAKE_ONE if isinstance(error, NotADirectoryError) else _HOW_TO_READ_IT
            raise CacheError(str(self.path), f"can't be read: {error.strerror}", hint) from None

    def look_at_layout(self) -> None:
        """Raise one of `FAULTS` unless this is a cache of a layout that is known."""
        with self.opened() as folder:
            self._require_layout(folder)

    def look(self, kind: Kind[_Found]) -> list[_Found | Finding]:
        """Return the files of a kind, and findings. Raises one of `FAULTS` unless this is a cache of a known layout."""
        with self.opened() as folder:
            self._require_layout(folder)
            return [*self._each_in(folder, kind, "")]

    def records(self) -> Iterator[Record | Finding]:
        """Yield every record by toolchain and kernel id; a `Finding` for what is damaged, untrusted or unreadable."""
        return self._each(RECORD)

    def toolchains(self) -> Iterator[Toolchain | Finding]:
        """Yield every toolchain that has built into this cache; a `Finding` as `records` does."""
        return self._each(TOOLCHAIN)

    def libraries(self) -> Iterator[Library | Finding]:
        """Yield the run-time library of every toolchain that has one here; a `Finding` as `records` does."""
        return self._each(LIBRARY)

    def manifests(self) -> Iterator[Manifest | Finding]:
        """Yield every manifest; a `Finding` as `records` does."""
        return self._each(MANIFEST)

    def origins(self) -> Iterator[Origin | Finding]:
        """Yield where kernels come from, as far as there are files of it; a `Finding` as `records` does."""
        yield from self._each_beside(ORIGIN)

    def origin(self, toolchain: str, kernel: KernelId) -> Origin | Finding | None:
        """Return where a kernel comes from, None if no file says it. Never raises for what is on disk."""
        if self.vouchers:  # for which nobody vouches
            return None
        relative = layout.origin_path(toolchain, kernel)
        try:
            with opened_folder(self.path, self.trust) as folder:
                return ORIGIN.parsed(relative, _read(folder, relative, layout.MOST_BYTES))
        except FileNotFoundError:
            return None
        except FAULTS as error:
            return finding_of(error, self.path, relative)

    def certificates(self, digits: str = "") -> Iterator[Certificate | Finding]:
        """Yield how kernels ran whose ids begin with some digits, as far as that is known; a `Finding` as `records`."""
        yield from self._each_beside(CERTIFICATE, digits)

    def listed(self) -> Iterator[Listed[Any] | Finding]:
        """Yield every JSON file that counts, with its line in the list of contents; a `Finding` as `records` does."""
        for kind in COUNTED:
            yield from self._each(listed(kind))

    def manifest(self, toolchain: str, spec_digest: str, target: Target) -> Manifest | None:
        """Return a spec's manifest, None if there is none. Raises one of `FAULTS`."""
        relative = layout.manifest_path(toolchain, spec_digest, target)
        try:
            with self.opened() as folder:
                data = self._data(partial(_read, folder), relative, layout.MOST_MANIFEST_BYTES)
                manifest = Manifest.parse_file(relative, data)
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
                self.opened() as root,
                root.below(f"{above}/?") as (folder, _),
            ):
                found |= {entry for entry in group if _is_as_listed(folder, entry)}
        return found

    @contextmanager
    def opened(self) -> Iterator[Folder]:
        """Open it, and know its seal: who must vouch for it does. Raises one of `FAULTS`."""
        with opened_folder(self.path, self._reading) as folder:
            self._know_folder(folder)
            self._know_seal(folder)
            yield folder

    def file(self, entry: Entry) -> bytes:
        """Return the bytes of a file of a list, not verified. Raises one of `FAULTS`."""
        with self.opened() as folder:
            return _read(folder, entry.path, entry.size)

    def has_file(self, relative: str) -> bool:
        """Return whether there is a file of a path, whatever is in it."""
        try:
            with self.opened() as root, root.below(relative) as (folder, name):
                return folder.size(name) >= 0
        except FAULTS:
            return False

    # How it is done

    def _read(self, folder: Folder, read: Callable[[str, int], bytes], toolchain: str, kernel: KernelId) -> Hit:
        self._know_folder(folder)
        if not self._layout_is_known:
            self._require_layout(folder)
        relative = layout.record_path(toolchain, kernel)
        reference = Reference.parse_file(relative, self._data(read, relative, layout.MOST_BYTES))
        if reference.id != kernel or reference.toolchain != toolchain:
            raise RecordError(relative, f"describes another kernel, {reference.id}")
        return Hit(reference, _verified(reference, read))

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
        self._know_seal(folder)
        self._layout_is_known = True

    def _each(self, kind: Kind[_Found], digits: str = "") -> Iterator[_Found | Finding]:
        """Yield the files of a kind, and what is wrong on the way to them: of a sealed root, those that are listed.

        `digits` are those that the names of the files begin with.
        """
        try:
            with self.opened() as folder:
                yield from self._each_in(folder, kind, digits)
        except FAULTS as error:
            yield finding_of(error, self.path, error.path if isinstance(error, RecordError) else ".")

    def _each_in(self, folder: Folder, kind: Kind[_Found], digits: str) -> Iterator[_Found | Finding]:
        if self._seal is None:
            return walk(folder, kind.pattern.split("/"), kind, digits)
        return self._each_listed(self._seal, folder, kind, digits)

    def _each_beside(self, kind: Kind[_Found], digits: str = "") -> Iterator[_Found | Finding]:
        """Yield the files of a kind that is in no list of contents."""
        if self.vouchers:  # for which nobody vouches
            return
        try:
            with opened_folder(self.path, self.trust) as folder:
                yield from walk(folder, kind.pattern.split("/"), kind, digits)
        except FAULTS as error:
            yield finding_of(error, self.path, ".")

    def _each_listed(self, seal: Seal, folder: Folder, kind: Kind[_Found], digits: str) -> Iterator[_Found | Finding]:
        for entry in seal.contents.of_kind(kind.folder):
            if not entry.path.rpartition("/")[2].startswith(digits):
                continue
            try:
                yield kind.parsed(entry.path, self._data(partial(_read, folder), entry.path, kind.most))
            except FAULTS as error:
                yield finding_of(error, self.path, entry.path)

    @property
    def _reading(self) -> Trust:
        """Whose files are read: where somebody vouches for each of them, anybody's."""
        return Trust.ANY if self.vouchers else self.trust

    def _know_folder(self, folder: Folder) -> None:
        """Forget what was found out of another folder, or of this one before something at its top has changed."""
        status = os.fstat(folder.descriptor)
        found = status.st_dev, status.st_ino, status.st_ctime_ns
        if found != self._folder:
            self._folder, self._layout_is_known, self._seal_is_known = found, False, False

    def _know_seal(self, folder: Folder) -> None:
        if not self._seal_is_known:
            self._seal = read_seal(folder, self.vouchers)
            self._seal_is_known = True

    def _data(self, read: Callable[[str, int], bytes], relative: str, most: int) -> bytes:
        """Return the bytes of a JSON file, at most so many; of a sealed root those that are listed."""
        return read(relative, most) if self._seal is None else self._seal.read(read, relative)


def _read(root: Folder, relative: str, most: int) -> bytes:
    with root.below(relative) as (folder, name):
        return folder.read(name, most)


def _verified(record: Record | Reference | Library, read: Callable[[str, int], bytes]) -> bytes:
    relative = layout.blob_path(record.blob)
    try:
        blob = read(relative, record.blob_bytes)
    except FileNotFoundError:
        raise RecordError(relative, NO_BLOB) from None
    if len(blob) != record.blob_bytes or hashlib.sha256(blob).hexdigest() != record.blob:
        raise RecordError(relative, WRONG_BLOB)
    return blob


def _is_as_listed(folder: Folder, entry: Entry) -> bool:
    try:
        return folder.digest(entry.path.rpartition("/")[2], entry.size) == (entry.size, entry.digest)
    except FAULTS:
        return False


_HOW_TO_MAKE_ONE = "`fa4-precompile build SPEC --cache DIR` makes one"
_HOW_TO_READ_IT = "let your user read it, or name another with `--cache DIR`"
NO_BLOB = "is missing, though a record names it"
WRONG_BLOB = "is damaged: its bytes do not have the digest that is its name"

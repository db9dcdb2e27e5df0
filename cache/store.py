"""Reading one cache directory.

Guarantees
    A kernel that `find` or `read` returns has the bytes that its record states, and the record the fields that were
    asked for.
Concurrency
    Any number of readers beside any number of builders (`publish`). Readers take no lock and write nothing.
Security
    Integrity, not authenticity: who can write the cache can replace kernels. So files that others could have written
    are refused (`trust`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from string import hexdigits
from typing import TypeVar

from ..errors import CacheError, RecordError
from . import layout
from .key import BlobDigest, KernelId
from .manifest import Manifest
from .outcome import FAULTS, Finding, Hit, Miss, finding_of, miss_of
from .record import Record, Reference
from .target import Target
from .toolchain import Toolchain
from .trust import Trust, opened_folder, read_file

_Found = TypeVar("_Found")


@dataclass
class Root:
    """One cache directory, as readers see it. Creating the object touches nothing."""

    path: Path
    trust: Trust = Trust.OWN
    # Found out once: every lookup of a job would read the file again.
    _layout_is_known: bool = field(default=False, init=False, repr=False, compare=False)

    # One kernel

    def find(self, toolchain: str, kernel: KernelId) -> Hit | Miss:
        """Return as much of a kernel as loading it needs, or why there is none. Never raises for what is on disk."""
        return self._or_miss(lambda: self.read(toolchain, kernel), kernel)

    def find_record(self, toolchain: str, kernel: KernelId) -> Record | Miss:
        """Return the whole record of a kernel whose blob is right, or why there is none. Never raises, as `find`."""
        return self._or_miss(lambda: self.read(toolchain, kernel).record, kernel)

    def read(self, toolchain: str, kernel: KernelId) -> Hit:
        """Return as much of a kernel as loading it needs, its blob verified. Raises one of `FAULTS`."""
        with opened_folder(self.path, self.trust) as descriptor:
            if not self._knows_layout(descriptor):
                raise CacheError(str(self.path), f"is no cache of layout {layout.LAYOUT}")
            relative = layout.record_path(toolchain, kernel)
            reference = Reference.parse_file(relative, read_file(self.path, descriptor, relative, self.trust))
            if reference.id != kernel or reference.toolchain != toolchain:
                raise RecordError(relative, f"describes another kernel, {reference.id}")
            return Hit(reference, self._read_blob(descriptor, reference.blob, reference.blob_bytes))

    def blob(self, record: Record) -> bytes:
        """Return a record's blob, verified. Raises one of `FAULTS`."""
        with opened_folder(self.path, self.trust) as descriptor:
            return self._read_blob(descriptor, record.blob, record.blob_bytes)

    def record_files(self, digits: str) -> list[str]:
        """Return the files of the records whose kernel id begins with some hexadecimal digits, relative to the root."""
        return self._files(f"records/*/*/{digits}*.json") if digits and not set(digits) - set(hexdigits) else []

    def record_at(self, relative: str) -> Record:
        """Return the record of a file, the blob not looked at. Raises `RecordError` or `UntrustedError`."""
        try:
            return self._item(relative, Record.parse_file, _record_path)
        except OSError as error:
            raise RecordError(relative, f"can't be read: {error.strerror}", "") from None

    # All that is there

    def require_layout(self) -> None:
        """Raise `CacheError` unless this is a cache of a layout that is known, `UntrustedError` if it is refused."""
        try:
            data = self._read(layout.FORMAT)
        except FileNotFoundError:
            there = self.path.is_dir()
            raise CacheError(
                str(self.path),
                "is no kernel cache" if there else "does not exist",
                "`fa4-precompile build SPEC --cache DIR` makes one",
            ) from None
        except OSError as error:
            raise CacheError(str(self.path), f"can't be read: {error.strerror}") from None
        if not layout.is_known(data):
            raise CacheError(
                str(self.path),
                f"its `{layout.FORMAT}` does not say layout {layout.LAYOUT}, the one that this version reads",
                "use the version of fa4-precompile that built it, or build a new cache",
            )

    def records(self) -> Iterator[Record | Finding]:
        """Yield every record by toolchain and kernel id; a `Finding` for one that is damaged or not trusted."""
        return self._each(layout.RECORDS, Record.parse_file, _record_path)

    def toolchains(self) -> Iterator[Toolchain | Finding]:
        """Yield every toolchain that has built into this cache; a `Finding` for one that is damaged or not trusted."""
        return self._each(layout.TOOLCHAINS, Toolchain.parse_file, _toolchain_path)

    def manifests(self) -> Iterator[Manifest | Finding]:
        """Yield every manifest; a `Finding` for one that is damaged or not trusted."""
        return self._each(layout.MANIFESTS, Manifest.parse_file, _manifest_path)

    def manifest(self, toolchain: str, spec_digest: str, target: Target) -> Manifest | None:
        """Return a spec's manifest, None if there is none. Raises one of `FAULTS`."""
        relative = layout.manifest_path(toolchain, spec_digest, target)
        try:
            manifest = Manifest.parse_file(relative, self._read(relative))
        except FileNotFoundError:
            return None
        if (manifest.toolchain, manifest.spec_digest, manifest.target) != (toolchain, spec_digest, target):
            raise RecordError(relative, f"describes a build of {manifest.spec} that belongs elsewhere")
        return manifest

    def manifest_path(self, manifest: Manifest) -> Path:
        """Return where a manifest is."""
        return self.path / _manifest_path(manifest)

    def blob_path(self, record: Record) -> Path:
        """Return where a record's blob is."""
        return self.path / layout.blob_path(record.blob)

    # How it is done

    def _or_miss(self, look: Callable[[], _Found], kernel: KernelId) -> _Found | Miss:
        try:
            return look()
        except FAULTS as error:
            return miss_of(error, self.path, f"record of kernel {kernel[:12]}")

    def _each(
        self, pattern: str, parse: Callable[[str, bytes], _Found], place: Callable[[_Found], str]
    ) -> Iterator[_Found | Finding]:
        for relative in self._files(pattern):
            try:
                item = self._item(relative, parse, place)
            except FAULTS as error:
                yield finding_of(error, self.path, relative)
                continue
            yield item

    def _item(self, relative: str, parse: Callable[[str, bytes], _Found], place: Callable[[_Found], str]) -> _Found:
        item = parse(relative, self._read(relative))
        if place(item) != relative:
            raise RecordError(relative, f"describes what belongs elsewhere, at `{place(item)}`")
        return item

    def _files(self, pattern: str) -> list[str]:
        paths = (path for path in self.path.glob(pattern) if not path.name.startswith("."))
        return sorted(path.relative_to(self.path).as_posix() for path in paths)

    def _knows_layout(self, descriptor: int) -> bool:
        if not self._layout_is_known:
            try:
                content = read_file(self.path, descriptor, layout.FORMAT, self.trust)
            except FileNotFoundError:
                return False
            self._layout_is_known = layout.is_known(content)
        return self._layout_is_known

    def _read(self, relative: str) -> bytes:
        with opened_folder(self.path, self.trust) as descriptor:
            return read_file(self.path, descriptor, relative, self.trust)

    def _read_blob(self, descriptor: int, digest: BlobDigest, size: int) -> bytes:
        relative = layout.blob_path(digest)
        try:
            blob = read_file(self.path, descriptor, relative, self.trust)
        except FileNotFoundError:
            raise RecordError(relative, "is missing, though a record names it") from None
        if len(blob) != size or hashlib.sha256(blob).hexdigest() != digest:
            raise RecordError(relative, "is damaged: its bytes do not have the digest that is its name")
        return blob


def _record_path(record: Record) -> str:
    return layout.record_path(record.toolchain, record.id)


def _toolchain_path(toolchain: Toolchain) -> str:
    return layout.toolchain_path(toolchain.id)


def _manifest_path(manifest: Manifest) -> str:
    return layout.manifest_path(manifest.toolchain, manifest.spec_digest, manifest.target)

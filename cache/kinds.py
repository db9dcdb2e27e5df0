"""The kinds of JSON files in a cache: how each is read, and where one belongs that says what it says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from ..errors import RecordError
from . import layout
from .certificate import Certificate
from .contents import Entry
from .library import Library
from .manifest import Manifest
from .origin import Origin
from .record import Record
from .toolchain import Toolchain
from .trust import Folder

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Kind(Generic[_Item]):
    """A kind of file: where its files are, how one is read, where one of its content belongs, and how large it can be.

    `pattern` is relative to the root, as `layout` has it.
    """

    pattern: str
    parse: Callable[[str, bytes], _Item]
    place: Callable[[_Item], str]
    most: int = layout.MOST_BYTES

    @property
    def folder(self) -> str:
        """The folder at the root that its files are in."""
        return self.pattern.partition("/")[0]

    def read(self, folder: Folder, name: str, relative: str) -> _Item:
        """Return what is in a file of a folder. Raises `RecordError`, or what the folder raises."""
        return self.parsed(relative, folder.read(name, self.most))

    def parsed(self, relative: str, data: bytes) -> _Item:
        """Return what a file's bytes say. Raises `RecordError`, also if it belongs elsewhere than where it is."""
        item = self.parse(relative, data)
        if self.place(item) != relative:
            raise RecordError(relative, f"describes what belongs elsewhere, at `{self.place(item)}`")
        return item


def _record_path(record: Record) -> str:
    return layout.record_path(record.toolchain, record.id)


def _toolchain_path(toolchain: Toolchain) -> str:
    return layout.toolchain_path(toolchain.id)


def _library_path(library: Library) -> str:
    return layout.library_path(library.toolchain)


def _manifest_path(manifest: Manifest) -> str:
    return layout.manifest_path(manifest.toolchain, manifest.spec_digest, manifest.target)


def _origin_path(origin: Origin) -> str:
    return layout.origin_path(origin.toolchain, origin.kernel)


def _certificate_path(certificate: Certificate) -> str:
    return layout.certificate_path(certificate.toolchain, certificate.kernel, certificate.where.digest)


RECORD = Kind(layout.RECORDS, Record.parse_file, _record_path)
TOOLCHAIN = Kind(layout.TOOLCHAINS, Toolchain.parse_file, _toolchain_path)
ORIGIN = Kind(layout.ORIGINS, Origin.parse_file, _origin_path)
CERTIFICATE = Kind(layout.CERTIFICATES, Certificate.parse_file, _certificate_path)
LIBRARY = Kind(layout.LIBRARIES, Library.parse_file, _library_path)
MANIFEST = Kind(layout.MANIFESTS, Manifest.parse_file, _manifest_path, layout.MOST_MANIFEST_BYTES)

COUNTED: tuple[Kind[Any], ...] = (TOOLCHAIN, LIBRARY, RECORD, MANIFEST)
"""The kinds that are in the list of contents; what else is in it are blobs."""

BESIDE: tuple[Kind[Any], ...] = (ORIGIN, CERTIFICATE)
"""The kinds that are about a kernel, and in no list of contents."""

_BY_FOLDER: Mapping[str, Kind[Any]] = MappingProxyType({kind.folder: kind for kind in COUNTED})


@dataclass(frozen=True)
class Listed(Generic[_Item]):
    """What a JSON file of a cache says, and its line in the list of contents."""

    item: _Item
    entry: Entry


def listed(kind: Kind[_Item]) -> Kind[Listed[_Item]]:
    """Return the same kind of file, read together with its line in the list of contents."""

    def parse(source: str, data: bytes) -> Listed[_Item]:
        entry = Entry(source, hashlib.sha256(data).hexdigest(), len(data))
        return Listed(kind.parsed(source, data), entry)

    return Kind(kind.pattern, parse, lambda found: kind.place(found.item), kind.most)


def parse_file(relative: str, data: bytes) -> Record | Toolchain | Library | Manifest:
    """Read a JSON file of a cache by its path. Raises `RecordError`, also if it belongs elsewhere."""
    item: Record | Toolchain | Library | Manifest = _BY_FOLDER[relative.partition("/")[0]].parsed(relative, data)
    return item

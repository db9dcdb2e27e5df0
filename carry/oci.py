"""A cache as an artifact in an OCI registry: pulled from there as a source, and pushed to it.

Guarantees
    A tag is set last, when all is there that its manifest names: whoever stops half-way leaves it as it was.
    What a registry has is not sent again, and of what is here nothing is fetched: packs are read piece by piece.
Not guaranteed
    Of two who push to one tag at the same time, that both have a part in what it names: it is the last one's.
Security
    Nothing that a registry says is believed but what has the digest that it was asked for by.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import IO

from ..cache import layout
from ..cache.contents import Contents, Entry
from ..errors import MachineError, RecordError, RefusedError, UsageError
from .oci_manifest import (
    CONFIG,
    CONTENTS,
    PACK,
    SIGNATURE,
    TITLE,
    Artifact,
    Layer,
)
from .oci_parts import Part, Parts
from .oci_url import Place
from .pack import write_pack
from .packed import PackSource
from .registry import Blob, Registry, RegistryBlob, digest_of
from .source import Source
from .wire import NotThere

_MOST_KEPT = 32
"""How many layers of what a tag named are kept: each takes some requests whenever it is pulled."""

_PIECE = 1 << 20


class OciSource:
    """An artifact in a registry. It is a `Source`. Creating the object sends nothing."""

    def __init__(self, registry: Registry) -> None:
        self.name = str(registry.place)
        self._registry = registry
        self._found: tuple[str, Artifact] | None = None
        self._packs: dict[Blob, PackSource] = {}

    @property
    def digest(self) -> str:
        """The digest of the manifest: what the tag names when it is first asked."""
        return self._manifest()[0]

    @property
    def artifact(self) -> Artifact:
        """What the manifest says. Raises `RefusedError` for one that is not of a cache, `NotThere`, `CarryError`."""
        return self._manifest()[1]

    def contents(self) -> Contents:
        """Return what is there. Raises `RecordError` for a list that is none, and as `artifact` does."""
        return Contents.parse(self.name, self._registry.whole(self.artifact.contents.blob))

    def signature(self) -> bytes:
        """Return the bytes of the signature over the list; none if it is not signed."""
        layer = self.artifact.signature
        return self._registry.whole(layer.blob) if layer else b""

    def read(self, entries: Sequence[Entry]) -> Iterator[tuple[Entry, bytes]]:
        """Yield the bytes of some files, layer by layer, of those layers only that have any."""
        left = dict.fromkeys(entries)
        for layer in self.artifact.packs:
            if not left:
                return
            inner = self.listed(layer).entries
            here = [entry for entry in left if inner.get(entry.path) == entry]
            yield from self._packs[layer.blob].read(here)
            for entry in here:
                del left[entry]

    def listed(self, layer: Layer) -> Contents:
        """Return the list of a layer's files. Raises `RefusedError` for what is no pack."""
        if layer.blob not in self._packs:
            self._packs[layer.blob] = PackSource(RegistryBlob(self._registry, layer.blob))
        return self._packs[layer.blob].contents()

    def close(self) -> None:
        """Close the connections, and forget what is kept of layers."""
        for pack in self._packs.values():
            pack.close()
        self._packs.clear()
        self._registry.close()

    def _manifest(self) -> tuple[str, Artifact]:
        if self._found is None:
            data = self._registry.manifest()
            try:
                self._found = digest_of(data), Artifact.parse(self.name, data)
            except RecordError as error:
                raise RefusedError(self.name, error.reason) from None
        return self._found


@dataclass(frozen=True)
class Pushed:
    """What was pushed.

    Attributes:
        digest: of the manifest that the tag names now.
        kept: how many layers with files the registry had, and that are kept.
        made: how many are new.
        files: how many files are in the new ones.
        bytes: how many bytes were uploaded; of what the registry had, none.
    """

    digest: str
    kept: int
    made: int
    files: int
    bytes: int


def open_oci(url: str) -> OciSource:
    """Return an artifact as a source. Raises `UsageError`, or `MachineError` if a package is missing."""
    return OciSource(Registry(Place.parse(url)))


def push_oci(
    source: Source,
    contents: Contents,
    signature: bytes,
    url: str,
    arrived: Callable[[int], None] = lambda size: None,
) -> Pushed:
    """Push the files of a list, and the signature over it, to a tag.

    `arrived` is told the size of each file that is packed, and of those together that the registry has.

    Layers of what the tag names are kept, as far as at least half of their bytes are wanted; what they don't have goes
    into new ones. Raises `UsageError`, `CarryError`, `RefusedError` for a tag that names something else, and whatever
    the source raises.
    """
    place = Place.parse(url)
    if place.digest:
        raise UsageError(f"`{url}` names a digest, and what is pushed gets its own", "name a tag alone")
    parts = Parts.of(source, contents)
    registry = Registry(place)
    with closing(OciSource(registry)) as before:
        kept, old = _kept(before, contents)
        here = {entry for layer in kept for entry in before.listed(layer).entries.values()}
        missing = contents.only(lambda entry: entry not in here)
        arrived(contents.size - missing.size)
        push = _Push(registry, arrived)
        made = [push.pack(source, files, part, parts) for part, files in parts.split(missing)]
        artifact = Artifact(
            contents=push.small(CONTENTS, contents.render(), layout.SEAL),
            signature=push.small(SIGNATURE, signature, layout.SIGNATURE) if signature else None,
            packs=[*kept, *made],
            annotations=parts.annotations(contents),
        )
        push.small(CONFIG, artifact.config, "config")
        manifest = artifact.render()
        if digest_of(manifest) != old:
            registry.tag(manifest)
    return Pushed(digest_of(manifest), len(kept), len(made), len(missing.entries), push.uploaded)


def _kept(before: OciSource, wanted: Contents) -> tuple[list[Layer], str]:
    """Return the layers to keep of what a tag names, and the digest of that; none and nothing if there is none."""
    try:
        packs, digest = before.artifact.packs, before.digest
    except NotThere:
        return [], ""
    except RefusedError as error:
        raise RefusedError(error.place, f"the tag names something else: {error.reason}", "name another tag") from None
    left = set(wanted.entries.values())
    useful: list[tuple[int, Layer]] = []
    for layer in packs:
        try:
            inner = before.listed(layer)
        except (RefusedError, NotThere):  # it is damaged: what it should have is packed again
            continue
        size = sum(entry.size for entry in left.intersection(inner.entries.values()))
        if 0 < inner.size <= 2 * size:
            useful.append((size, layer))
            left -= set(inner.entries.values())
    largest = sorted(useful, key=lambda one: one[0], reverse=True)[:_MOST_KEPT]
    return [layer for size, layer in useful if (size, layer) in largest], digest


@dataclass
class _Push:
    """Uploads one by one. `uploaded` is how many bytes there were in those that the registry did not have."""

    registry: Registry
    arrived: Callable[[int], None]
    uploaded: int = 0

    def pack(self, source: Source, files: Contents, part: Part, parts: Parts) -> Layer:
        """Upload a pack with some files."""
        try:
            with tempfile.TemporaryFile() as out:
                # What a file names that is in another layer was looked for in `Parts.of`.
                write_pack(source, files, out, arrived=self.arrived, is_beside=lambda path: True)
                blob = _blob(out)
                self._upload(blob, out)
        except OSError as error:
            raise MachineError(
                f"a pack for `{self.registry.place}` can't be written: {error.strerror}",
                "free some space where `TMPDIR` says, or set it",
            ) from None
        name = f"{part.arch or 'toolchain'}-{part.toolchain[:12]}-{blob.digest.removeprefix('sha256:')[:12]}.tar.zst"
        return Layer(PACK, blob, {TITLE: name, **parts.annotations(files)})

    def small(self, media_type: str, data: bytes, title: str) -> Layer:
        """Upload some bytes."""
        layer = Layer.of(media_type, data, title)
        self._upload(layer.blob, io.BytesIO(data))
        return layer

    def _upload(self, blob: Blob, data: IO[bytes]) -> None:
        if self.registry.upload(blob, data):
            self.uploaded += blob.size


def _blob(file: IO[bytes]) -> Blob:
    """Return the digest and size of a file."""
    file.seek(0)
    digest, size = hashlib.sha256(), 0
    while piece := file.read(_PIECE):
        digest.update(piece)
        size += len(piece)
    return Blob(f"sha256:{digest.hexdigest()}", size)

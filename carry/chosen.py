"""Choosing builds of a source. Reads what it takes to choose."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..cache import layout
from ..cache.contents import Contents, Entry
from ..cache.kinds import parse_file
from ..cache.library import Library
from ..cache.manifest import Manifest
from ..cache.record import Record
from ..cache.toolchain import Toolchain
from ..errors import RefusedError, UsageError
from .receive import parsed, read_verified
from .source import Source


@dataclass(frozen=True)
class Part:
    """Which builds are wanted: of a spec, for the targets of a name, for an arch. What is None is not asked for.

    `spec` is the name of one, or the digest of what it enumerates.
    """

    spec: str | None = None
    target: str | None = None
    arch: str | None = None

    @property
    def is_all(self) -> bool:
        """Return whether nothing is asked for: then it is the whole cache, also what no build vouches for."""
        return self == Part()

    def has(self, manifest: Manifest) -> bool:
        """Return whether a build is wanted."""
        return (
            self.spec in (None, manifest.spec, manifest.spec_digest)
            and self.target in (None, manifest.target.name)
            and self.arch in (None, manifest.target.arch)
        )

    def __str__(self) -> str:
        asked = {"spec": self.spec, "target": self.target, "arch": self.arch}
        return ", ".join(f"{name} `{value}`" for name, value in asked.items() if value is not None)


class ChosenSource:
    """A source, of which what was read to choose is not read again. It is a `Source`.

    `contents` is what is there; `wanted` what is chosen of it: builds with their records and blobs, toolchains and
    run-time libraries. Creating the object reads what it takes to choose.
    """

    def __init__(self, source: Source, contents: Contents, part: Part) -> None:
        self.name = source.name
        self._source = source
        self._had: dict[Entry, bytes] = {}
        self._contents = contents
        self.wanted = contents if part.is_all else self._chosen(part)

    def contents(self) -> Contents:
        """Return what is there."""
        return self._contents

    def signature(self) -> bytes:
        """Return the bytes of the signature over all that is there."""
        return self._source.signature()

    def signature_of_wanted(self) -> bytes:
        """Return the signature over what is wanted: nothing if that is not all."""
        return self.signature() if self.wanted == self._contents else b""

    def read(self, entries: Sequence[Entry]) -> Iterator[tuple[Entry, bytes]]:
        """Yield the bytes of some files, first those that are here."""
        yield from ((entry, self._had[entry]) for entry in entries if entry in self._had)
        if left := [entry for entry in entries if entry not in self._had]:
            yield from self._source.read(left)

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def _chosen(self, part: Part) -> Contents:
        builds = {entry.path: self._parsed(entry) for entry in self._read(list(self._contents.of_kind("manifests")))}
        wanted = {path: build for path, build in builds.items() if isinstance(build, Manifest) and part.has(build)}
        if not wanted:
            there = sorted({_shown(build) for build in builds.values() if isinstance(build, Manifest)})
            hint = f"there are: {', '.join(there)}" if there else "it has none"
            raise UsageError(f"`{self.name}` has no build of {part}", hint)
        described = list(map(self._listed, sorted(set(self._described(wanted.values())))))
        items = [self._parsed(entry) for entry in self._read(described)]
        blobs = {layout.blob_path(item.blob) for item in items if isinstance(item, (Record, Library))}
        paths = {*wanted, *(entry.path for entry in described), *(self._listed(path).path for path in blobs)}
        return self._contents.only(lambda entry: entry.path in paths)

    def _described(self, builds: Iterable[Manifest]) -> Iterator[str]:
        """Yield the paths of what builds name, but for blobs. Not every toolchain has a library."""
        for build in builds:
            yield from (layout.record_path(build.toolchain, kernel) for kernel in build.kernels)
            yield layout.toolchain_path(build.toolchain)
            if (library := layout.library_path(build.toolchain)) in self._contents.entries:
                yield library

    def _listed(self, path: str) -> Entry:
        if path not in self._contents.entries:
            raise RefusedError(self.name, f"one of its files names `{path}`, which is not in its list of contents")
        return self._contents.entries[path]

    def _read(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Read files, keep them, and return which."""
        self._had.update(read_verified(self._source, entries))
        return entries

    def _parsed(self, entry: Entry) -> Record | Toolchain | Library | Manifest:
        return parsed(self.name, parse_file, entry, self._had[entry])


def _shown(build: Manifest) -> str:
    return f"{build.spec} for {build.target.name} ({build.target.arch})"

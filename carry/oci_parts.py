"""What a cache is made of, for an artifact: which files go into one layer, and what is said of them.

A layer has the kernels of one toolchain for one arch, or a toolchain's own files with the run-time library. So who
wants one arch takes two layers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

from ..cache import layout
from ..cache.contents import Contents, Entry
from ..cache.library import Library
from ..cache.manifest import Manifest
from ..cache.record import Record
from ..cache.target import Target
from ..cache.toolchain import Toolchain
from .receive import read_verified, require_sound
from .source import Source

_PREFIX = "vnd.fa4-precompile."
_ABOUT = "org.opencontainers.image.description"
_MOST_SPECS = 100


class Part(NamedTuple):
    """What goes into one layer; `arch` is empty for a toolchain's own files."""

    toolchain: str
    arch: str


@dataclass(frozen=True)
class Said:
    """What a file of a cache says of itself, as far as it matters here."""

    part: Part
    sms: int | None = None
    target: Target | None = None
    spec: str = ""
    blob: str = ""


@dataclass(frozen=True)
class Parts:
    """The parts of a cache.

    Attributes:
        said: by path, what a file says; a blob belongs to the first part that has a file which names it.
        toolchains: the toolchains by id.
    """

    said: Mapping[str, Said]
    toolchains: Mapping[str, Toolchain]

    @classmethod
    def of(cls, source: Source, contents: Contents) -> Parts:
        """Read what the files of a list say. Raises `RefusedError` unless all is as it says, and whole."""
        said: dict[str, Said] = {}
        toolchains: dict[str, Toolchain] = {}
        described = [entry for entry in contents.entries.values() if entry.kind != "blobs"]
        for entry, data in read_verified(source, described):
            item = require_sound(source.name, entry, data, contents.has)
            if isinstance(item, Toolchain):
                toolchains[item.id] = item
            said[entry.path] = _said(item)
        for part, blob in sorted((one.part, one.blob) for one in said.values() if one.blob):
            said.setdefault(blob, Said(part))
        return cls(said, toolchains)

    def split(self, contents: Contents) -> list[tuple[Part, Contents]]:
        """Return a list of files as one list for each part."""
        by_part = sorted(contents.entries.values(), key=self._part)
        return [(part, Contents.of(entries)) for part, entries in groupby(by_part, self._part)]

    def annotations(self, contents: Contents) -> dict[str, str]:
        """Return what is said of some files: words with a comma between, names of specs as a JSON list."""
        said = [self.said[path] for path in contents.entries if path in self.said]
        targets = {one.target for one in said if one.target}
        parts = {one.part for one in said}
        toolchains = [self.toolchains[name] for name in sorted({part.toolchain for part in parts} & {*self.toolchains})]
        specs = sorted({one.spec for one in said if one.spec})
        words: dict[str, Iterable[Any]] = {
            "arch": {part.arch for part in parts if part.arch},
            "sms": {one.sms for one in said if one.sms is not None},
            "cuda": {target.cuda for target in targets},
            "target": {target.name for target in targets},
            "machine": {toolchain.machine for toolchain in toolchains},
            "provider": {toolchain.provider for toolchain in toolchains},
            "provider-version": {toolchain.provider_version for toolchain in toolchains},
            "toolchain": {part.toolchain for part in parts},
        }
        found = {name: ",".join(str(word) for word in sorted(some)) for name, some in words.items() if some}
        found |= {"fingerprint": contents.fingerprint, "kernels": str(contents.kernels), "bytes": str(contents.size)}
        if len(specs) <= _MOST_SPECS:
            found["specs"] = json.dumps(specs)
        return {_ABOUT: _sentence(found), **{f"{_PREFIX}{name}": text for name, text in found.items()}}

    def _part(self, entry: Entry) -> Part:
        said = self.said.get(entry.path)
        return said.part if said else Part("", "")  # a blob that no file names


def _said(item: Record | Toolchain | Library | Manifest) -> Said:
    match item:
        case Record():
            return Said(Part(item.toolchain, item.arch), item.device_facts.get("sms"), blob=layout.blob_path(item.blob))
        case Manifest():
            return Said(Part(item.toolchain, item.target.arch), item.target.sms, item.target, item.spec)
        case Library():
            return Said(Part(item.toolchain, ""), blob=layout.blob_path(item.blob))
    return Said(Part(item.id, ""))


def _sentence(found: Mapping[str, str]) -> str:
    """Return what a person reads who meets the artifact in a registry."""
    if found["kernels"] == "0":
        return "the toolchain of precompiled attention kernels, and its run-time library"
    made = f"{found['provider']} {found['provider-version']}" if "provider" in found else "a provider"
    return f"{int(found['kernels']):,} kernels of {made} for {found['arch'].replace(',', ', ')}"

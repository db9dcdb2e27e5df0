"""What is said of kernels that are known to be bad, and by which list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..cache.manifest import Manifest
from ..cache.outcome import Finding
from ..cache.record import Record
from ..cache.store import Root
from ..cache.target import Target
from ..cache.toolchain import Toolchain
from ..loader.config import Config
from ..precompile.known_bad import Doubt, doubts_of_cache
from ..providers.known_bad.entry import Entry
from ..providers.known_bad.listed import KnownBad, known_bad
from ..text.words import count


def list_of(file: Path | None = None) -> KnownBad:
    """Return the list with what a file adds that is named, else the environment's. Raises `SpecError`."""
    return known_bad(file or Config.without_roots().known_bad)


def known_of(toolchains: Sequence[Toolchain | Finding], record: Record) -> list[Entry]:
    """Return what is known to go wrong with a kernel of a cache, as its toolchain, which is one of these, made it."""
    made_by = [one for one in toolchains if isinstance(one, Toolchain) and one.id == record.toolchain]
    known = list_of()
    return [entry for one in made_by for entry in known.about(one, record.arch).of(record.slot, record.key_fields)]


def suspicions(root: Root, known: KnownBad) -> Iterator[tuple[str, Target, list[Doubt]]]:
    """Yield the builds of a cache that have kernels which are known to be bad. Of others no kernel is read."""
    toolchains = {one.id: one for one in root.toolchains() if isinstance(one, Toolchain)}
    for manifest in root.manifests():
        if not isinstance(manifest, Manifest) or manifest.toolchain not in toolchains:
            continue
        toolchain = toolchains[manifest.toolchain]
        about = known.about(toolchain, manifest.target.arch)
        if doubts := doubts_of_cache(about, root, toolchain.id, manifest.kernels):
            yield toolchain.id, manifest.target, doubts


def doubt_lines(doubts: Sequence[Doubt]) -> Iterator[str]:
    """Yield a line for each entry of the list that kernels are on."""
    for doubt in doubts:
        yield f"warning: {count(len(doubt.kernels), 'kernel')} known to be bad: {doubt.entry}"

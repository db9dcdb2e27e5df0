"""The list of known-bad toolchains: the shipped one, and what a file of the user's changes of it.

A job reads the shipped one as JSON, in a fraction of a millisecond: to import what reads YAML takes a hundred times as
long. `make known-bad` makes the JSON of the YAML, and a test compares them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...cache.toolchain import Toolchain
from .entry import Entry

SHIPPED = Path(__file__).resolve().parents[2] / "kernel_specs" / "known_bad.yaml"
AS_JSON = SHIPPED.parent / "known_bad.json"


@dataclass(frozen=True)
class KnownBad:
    """Entries of the list: all that count, or those about one toolchain and arch, of which there are mostly none."""

    entries: Sequence[Entry] = ()

    def __bool__(self) -> bool:
        return bool(self.entries)

    def about(self, toolchain: Toolchain, arch: str) -> KnownBad:
        """Return what is known of kernels that a toolchain makes for an arch."""
        return KnownBad([entry for entry in self.entries if entry.is_about(toolchain, arch)])

    def of(self, slot: str, key_fields: Mapping[str, object]) -> list[Entry]:
        """Return what is known of a kernel, of a toolchain and an arch that all entries are about."""
        return [entry for entry in self.entries if entry.hits(slot, key_fields)]


NOTHING = KnownBad()


def known_bad(file: Path | None = None) -> KnownBad:
    """Return the shipped list, with what a file of the user's adds and switches off. Raises `SpecError`."""
    shipped = [Entry.parse(fields) for fields in json.loads(AS_JSON.read_bytes())]
    if file is None:
        return KnownBad(shipped)

    from .written import read_file  # what reads YAML

    return KnownBad(read_file(file).over(shipped))

"""Caches of builds that are as old as a test wants: what `gc` is tried on."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fa4_precompile.cache import layout
from fa4_precompile.cache.gc import Collected, Limits, collect
from fa4_precompile.cache.holdings import find_holdings
from fa4_precompile.cache.outcome import Hit
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.record import Record
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.verify import verify_root
from support import (
    make_manifest,
    make_origin,
    make_toolchain,
    numbered_record,
    publish_library,
    synthetic_blob,
)

HOUR = 3600.0
DAY = 24 * HOUR
OTHER = make_toolchain(provider_version="0.1-synthetic")


def age(path: Path, seconds: float) -> None:
    """Let files be older than they are, as if nobody had written or confirmed them since."""
    for file in [path, *path.rglob("*")]:
        if file.is_file():
            then = time.time() - seconds
            os.utime(file, (then, then), follow_symlinks=False)


class Aging:
    """A cache of builds, each of some numbered kernels and so many days old."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = Root(path)
        self.publisher = Publisher(self.root)
        self.publisher.create()
        self._specs = 0

    def build(self, numbers: Iterable[int], days: float, **changes: Any) -> Path:
        """Build as one spec more; nothing that was there before becomes younger."""
        toolchain = changes.get("toolchain", make_toolchain())
        before = {path: path.stat().st_mtime for path in self.path.rglob("*") if path.is_file()}
        self.publisher.publish_toolchain(toolchain)
        publish_library(self.publisher, toolchain)
        for number in numbers:
            self.store(number, toolchain.id)
        self._specs += 1
        records = [numbered_record(number, toolchain=toolchain.id) for number in numbers]
        manifest = make_manifest(
            *records, spec_digest=f"{self._specs:032x}{0:032x}", **changes | {"toolchain": toolchain.id}
        )
        path = self.publisher.publish_manifest(manifest)
        age(self.path, days * DAY)
        for file, then in before.items():
            os.utime(file, (then, then))
        return path

    def store(self, number: int, toolchain: str = make_toolchain().id) -> Record:
        """Publish a kernel, and what is said of how it came about."""
        record = numbered_record(number, toolchain=toolchain)
        self.publisher.publish(record, synthetic_blob(number), make_origin(record))
        return record

    def collect(self, is_real: bool = True, **limits: Any) -> Collected:
        """Collect, and require that what is left is whole and that what went was told."""
        before = set(find_holdings(self.root).files)
        found = collect(self.root, Limits(**limits), is_real)
        after = set(find_holdings(self.root).files)
        if is_real:
            assert {one.path for one in found.dropped if not _is_temporary(one.path)} == before - after
            assert found.left_bytes == find_holdings(self.root).size
        assert verify_root(self.root).findings == []
        return found

    def numbers(self, toolchain: str = make_toolchain().id) -> set[int]:
        """Return which kernels are there with all their parts."""
        found = set()
        for number in range(20):
            record = numbered_record(number, toolchain=toolchain)
            if isinstance(self.root.find(toolchain, record.id), Hit):
                assert (self.path / layout.origin_path(toolchain, record.id)).exists()
                found.add(number)
        return found

    def manifests(self) -> set[Path]:
        return set(self.path.glob("manifests/*/*.json"))


def _is_temporary(path: str) -> bool:
    return path.rpartition("/")[2].startswith(".tmp-")

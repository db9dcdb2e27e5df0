"""Many readers beside builders, deleters, and a disk that changes what it keeps: right bytes, or a miss."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fa4_precompile.cache import layout
from fa4_precompile.cache.key import KernelId
from fa4_precompile.cache.outcome import Hit, Miss
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.record import Record, Reference
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.verify import verify_root
from support import (
    blob_file,
    event,
    join,
    make_manifest,
    make_toolchain,
    numbered_record,
    publish_library,
    publish_synthetic,
    start,
    synthetic_blob,
)

_KERNELS = 12
_READERS = 16


def _build(path: Path, seed: int, rounds: int) -> None:
    chance = random.Random(seed)
    records = [numbered_record(number) for number in range(_KERNELS)]
    for _ in range(rounds):
        number = chance.randrange(_KERNELS)
        Publisher(Root(path)).publish(records[number], synthetic_blob(number))
        Publisher(Root(path)).publish_manifest(make_manifest(*records))


def _delete(path: Path, seed: int, ended: Any) -> None:
    chance = random.Random(seed)
    while not ended.is_set():
        files = sorted(file for file in path.glob("*/*/*/*") if not file.name.startswith("."))
        if files:
            chance.choice(files).unlink(missing_ok=True)


def _harm(path: Path, seed: int, ended: Any) -> None:
    """Change bytes in place, which nobody but a failing disk does."""
    chance = random.Random(seed)
    while not ended.is_set():
        file = blob_file(path, numbered_record(chance.randrange(_KERNELS)))
        try:
            file.chmod(0o644)
            with open(file, "r+b") as opened:
                opened.seek(chance.randrange(40))
                opened.write(b"?")
            file.chmod(0o444)
        except FileNotFoundError:
            continue


def _read(reader: type[Root], path: Path, seed: int, ended: Any) -> None:
    chance = random.Random(seed)
    records = [numbered_record(number) for number in range(_KERNELS)]
    for attempt in itertools.count():
        if ended.is_set() and attempt > _KERNELS:
            return
        record = chance.choice(records)
        root = reader(path)
        found = root.find(record.toolchain, record.id)
        if isinstance(found, Hit):
            assert hashlib.sha256(found.blob).hexdigest() == record.blob
        if attempt % 5 == 0:
            assert all(item.render() for item in root.records() if isinstance(item, Record))
            assert verify_root(root).records <= _KERNELS


def _contend(path: Path, reader: type[Root], rounds: int) -> None:
    publish_synthetic(path, _KERNELS)
    ended = event()
    readers = [start(_read, reader, path, seed, ended) for seed in range(_READERS)]
    others = [start(_delete, path, 100, ended), start(_harm, path, 101, ended)]
    builders = [start(_build, path, seed, rounds) for seed in (200, 201)]
    try:
        join(*builders)
    finally:
        ended.set()
    join(*others, *readers)


@pytest.mark.chance
def test_readers_beside_builders_deleters_and_a_failing_disk_get_right_bytes_or_a_miss(
    tmp_path: Path, effort: int
) -> None:
    _contend(tmp_path / "cache", Root, 50 * effort)
    for number in range(_KERNELS):  # and a build puts all right
        Publisher(Root(tmp_path / "cache")).publish(numbered_record(number), synthetic_blob(number))
    publish_library(Publisher(Root(tmp_path / "cache")), make_toolchain())
    assert verify_root(Root(tmp_path / "cache")).findings == []


class _Trusting(Root):
    """Takes the bytes that are there for those that are meant."""

    def find(self, toolchain: str, kernel: KernelId) -> Hit | Miss:
        relative = layout.record_path(toolchain, kernel)
        try:
            reference = Reference.parse_file(relative, (self.path / relative).read_bytes())
            return Hit(reference, (self.path / layout.blob_path(reference.blob)).read_bytes())
        except OSError:
            return super().find(toolchain, kernel)

    def records(self) -> Iterator[Any]:
        return iter(())


def test_reader_that_trusts_the_disk_is_found_out(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        _contend(tmp_path / "cache", _Trusting, 150)

"""Keeping a cache small while others read it, build into it, receive into it, or kill who does it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from aging import DAY, OTHER, Aging, age
from fa4_precompile.cache import store as store_module
from fa4_precompile.cache.contents import Contents
from fa4_precompile.cache.deleter import sweep_temporaries
from fa4_precompile.cache.gc import Limits, collect
from fa4_precompile.cache.holdings import find_holdings
from fa4_precompile.cache.listing import list_contents
from fa4_precompile.cache.outcome import Hit
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.verify import verify_root
from fa4_precompile.carry.receive import receive
from fa4_precompile.carry.root import RootSource
from fa4_precompile.errors import CarryError
from failing import die_before
from support import (
    blob_file,
    fail_call,
    make_record,
    make_toolchain,
    numbered_record,
    start,
)


@pytest.fixture
def cache(tmp_path: Path) -> Aging:
    """A cache with nothing in it."""
    return Aging(tmp_path / "cache")


# Beside others


def test_gc_killed_at_each_step_leaves_a_cache_that_is_whole(cache: Aging, tmp_path: Path) -> None:
    cache.build([0, 1, 2], days=40)
    cache.build([2, 3], days=20, toolchain=OTHER)
    cache.build([3, 4], days=10)
    files = len(find_holdings(cache.root).files)
    killed = 0
    for step in range(2 * files + 2):
        copy = tmp_path / f"copy-{step}"
        shutil.copytree(cache.path, copy)
        process = start(_collect_and_die, copy, step)
        process.join(60)
        killed += process.exitcode == -signal.SIGKILL
        assert verify_root(Root(copy)).findings == [], f"killed at step {step}"
        collect(Root(copy), Limits(most_seconds=15 * DAY), is_real=True)
        assert isinstance(Root(copy).find(make_toolchain().id, numbered_record(3).id), Hit)
        shutil.rmtree(copy)
    assert killed >= 10


def _collect_and_die(path: Path, step: int) -> None:
    """Collect, and be killed just before the call of that number which changes a name."""
    die_before(step, "rename", "unlink", "rmdir")
    collect(Root(path), Limits(most_seconds=15 * DAY), is_real=True)


@pytest.mark.chance
def test_gc_killed_at_any_moment_leaves_a_cache_that_is_whole(cache: Aging) -> None:
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    for day in range(40, 0, -1):
        cache.build(range(day % 7, day % 7 + 8), days=day, spec=f"spec-{day}")
    process = start(collect, cache.root, Limits(most_seconds=2 * DAY), True)
    time.sleep(moments.uniform(0, 0.4))
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join(60)
    assert verify_root(cache.root).findings == [], f"seed {seed}"
    cache.collect(most_seconds=2 * DAY)
    assert cache.numbers() == set(range(1, 9))


def test_gc_beside_a_reader_that_keeps_folders_is_a_miss_and_a_new_build_is_found(cache: Aging) -> None:
    cache.build([0], days=40)
    record = numbered_record(0)
    reader = Root(cache.path)
    reader.keep_folders()
    assert isinstance(reader.find(record.toolchain, record.id), Hit)
    cache.collect(most_seconds=1.0)
    assert not isinstance(reader.find(record.toolchain, record.id), Hit)
    cache.build([0], days=0)
    assert isinstance(reader.find(record.toolchain, record.id), Hit)
    reader.close()


def test_gc_between_the_reading_of_a_record_and_of_its_blob_is_a_miss(
    cache: Aging, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.build([0], days=40)
    record = numbered_record(0)
    verified = store_module._verified

    def collected(*arguments: Any) -> bytes:
        cache.collect(most_seconds=1.0)
        return verified(*arguments)

    monkeypatch.setattr(store_module, "_verified", collected)
    assert not isinstance(Root(cache.path).find(record.toolchain, record.id), Hit)


def test_publish_into_a_folder_that_gc_takes_away_as_it_is_empty_makes_it_again(
    cache: Aging, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, taken = os.open, 0

    def take(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        nonlocal taken
        if flags & os.O_CREAT and taken < 3 and "/blobs/" in str(path):
            taken += 1
            Path(path).parent.rmdir()
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", take)
    cache.publisher.publish(make_record(), b"synthetic bytes, no kernel\n" * 40)
    assert taken == 3
    cache.publisher.sync()
    assert isinstance(cache.root.find(make_record().toolchain, make_record().id), Hit)


def test_sweep_and_preparing_of_a_build_whose_folders_gc_takes_away_meanwhile_is_no_error(
    cache: Aging, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = cache.store(0)
    (cache.path / ".tmp-0123456789abcdef").write_bytes(b"half")
    age(cache.path, 40 * DAY)
    gone = str(blob_file(cache.path, record).parent)
    for name in ("listdir", "scandir"):
        fail_call(monkeypatch, name, 2, lambda where: os.path.realpath(_place(where)) == gone)
    assert sweep_temporaries(cache.root) == 1
    real, left = Path.glob, 2

    def glob(folder: Path, pattern: str) -> Any:
        nonlocal left
        left -= 1
        if left >= 0:
            raise FileNotFoundError(2, "No such file or directory")
        return real(folder, pattern)

    monkeypatch.setattr(Path, "glob", glob)
    cache.publisher.require_writable(record.toolchain)
    assert left < 0


def _place(where: object) -> str:
    return f"/proc/self/fd/{where}" if isinstance(where, int) else str(where)


def test_sync_of_a_folder_that_gc_has_taken_away_is_no_error(cache: Aging) -> None:
    record = cache.store(0)
    blob_file(cache.path, record).unlink()
    blob_file(cache.path, record).parent.rmdir()
    cache.publisher.sync()


class _Slow(RootSource):
    """A source that takes so long that something happens to what has come."""

    def __init__(self, root: Root, into: Path, number: int) -> None:
        super().__init__(root)
        self._blob = blob_file(into, numbered_record(number))

    def read(self, entries: Sequence[Any]) -> Any:
        if any(entry.kind != "blobs" for entry in entries):
            self._blob.unlink()
        return super().read(entries)


@pytest.mark.parametrize("number", [0, 1])
def test_receive_of_which_a_part_is_deleted_before_all_has_come_publishes_nothing_that_names_it(
    cache: Aging, tmp_path: Path, number: int
) -> None:
    cache.build([0, 1], days=0)
    there = Aging(tmp_path / "there")
    there.store(0)
    age(there.path, 40 * DAY)
    contents: Contents = list_contents(cache.root)
    with pytest.raises(CarryError, match="was deleted before all had arrived"):
        receive(_Slow(cache.root, there.path, number), there.publisher, contents)
    assert not there.manifests()
    receive(RootSource(cache.root), there.publisher, contents)
    assert verify_root(there.root).findings == []
    assert there.collect(most_bytes=0).dropped == (), "what was there already is confirmed"

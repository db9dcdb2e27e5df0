"""Keeping a cache small: what may go goes, all that is needed stays, whoever reads, builds or kills meanwhile."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from command_line import Cli, documents, finished_cache, require_error
from fa4_precompile.cache import gc as gc_module
from fa4_precompile.cache import layout
from fa4_precompile.cache import store as store_module
from fa4_precompile.cache.contents import Contents
from fa4_precompile.cache.deleter import sweep_temporaries
from fa4_precompile.cache.gc import Collected, Limits, collect
from fa4_precompile.cache.holdings import find_holdings
from fa4_precompile.cache.listing import list_contents
from fa4_precompile.cache.manifest import Manifest
from fa4_precompile.cache.outcome import Hit
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.record import Record
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.verify import verify_root
from fa4_precompile.carry.receive import receive
from fa4_precompile.carry.root import RootSource
from fa4_precompile.commands.options import AGE_UNITS, SIZE_UNITS, Quantity
from fa4_precompile.errors import CacheError, CarryError, MachineError, RecordError, UntrustedError
from fa4_precompile.precompile.report import finished_report
from fa4_precompile.precompile.spec.spec import find_spec, read_spec, target_book
from failing import die_before
from support import (
    blob_file,
    fail_call,
    give_away,
    make_manifest,
    make_origin,
    make_record,
    make_toolchain,
    numbered_record,
    overwrite,
    publish_library,
    record_file,
    snapshot,
    start,
    synthetic_blob,
    temporaries,
)

_HOUR = 3600.0
_DAY = 24 * _HOUR
_OTHER = make_toolchain(provider_version="0.1-synthetic")


def _age(path: Path, seconds: float) -> None:
    """Let files be older than they are, as if nobody had written or confirmed them since."""
    for file in [path, *path.rglob("*")]:
        if file.is_file():
            then = time.time() - seconds
            os.utime(file, (then, then), follow_symlinks=False)


class _Cache:
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
        _age(self.path, days * _DAY)
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


@pytest.fixture
def cache(tmp_path: Path) -> _Cache:
    """A cache with nothing in it."""
    return _Cache(tmp_path / "cache")


# What goes


def test_gc_without_limits_drops_what_nothing_names_and_nothing_else(cache: _Cache) -> None:
    cache.build([0, 1], days=90)
    stored, lost = cache.store(2), cache.store(3)
    cache.publisher.publish_toolchain(_OTHER)
    publish_library(cache.publisher, _OTHER)
    record_file(cache.path, lost).unlink()
    (cache.path / "blobs" / "sha256" / "ab").mkdir(exist_ok=True)
    (cache.path / "blobs" / "sha256" / "ab" / ".tmp-0123456789abcdef").write_bytes(b"half")
    _age(cache.path, 90 * _DAY)
    found = cache.collect()
    reasons = {one.path: one.reason for one in found.dropped}
    assert reasons == {
        layout.origin_path(lost.toolchain, lost.id): "its kernel is gone",
        layout.library_path(_OTHER.id): "no kernel is of its toolchain",
        layout.toolchain_path(_OTHER.id): "no kernel is of it",
        layout.blob_path(lost.blob): "no record names it",
        "blobs/sha256/ab/.tmp-0123456789abcdef": "it was never finished",
    }
    assert cache.numbers() == {0, 1, 2}
    assert isinstance(cache.root.find(stored.toolchain, stored.id), Hit), "of no build, and without a limit it stays"
    assert (found.kernels, found.builds, found.left_builds, found.left_kernels) == (0, (), 1, 3)


def test_gc_max_age_drops_builds_and_stored_kernels_that_are_older_and_keeps_what_others_share(cache: _Cache) -> None:
    old, new = cache.build([0, 1, 2], days=40), cache.build([2, 3], days=20)
    cache.store(4)
    _age(record_file(cache.path, numbered_record(4)), 50 * _DAY)
    cache.store(5)
    found = cache.collect(most_seconds=30 * _DAY)
    assert cache.manifests() == {new}
    assert [build.path for build in found.builds] == [old.relative_to(cache.path).as_posix()]
    assert cache.numbers() == {2, 3, 5}
    assert (found.kernels, found.left_kernels) == (3, 3)


def test_gc_max_size_drops_the_oldest_until_the_rest_fits(cache: _Cache) -> None:
    builds = [cache.build([number, number + 1], days=100 - number) for number in range(0, 10, 2)]
    whole = find_holdings(cache.root).size
    assert cache.collect(most_bytes=whole).builds == ()
    assert cache.manifests() == set(builds)
    found = cache.collect(most_bytes=whole - 1)
    assert (len(found.builds), found.fits) == (1, True)
    assert cache.manifests() == set(builds[1:])
    half = find_holdings(cache.root).size // 2
    found = cache.collect(most_bytes=half)
    assert found.left_bytes <= half
    assert cache.manifests() == set(builds[-found.left_builds :])
    smaller = cache.collect(is_real=False, most_bytes=found.left_bytes - 1)
    assert len(smaller.builds) == 1, "none more than has to"


def test_gc_max_size_counts_the_kernels_that_a_job_stored_by_their_own_age(cache: _Cache) -> None:
    cache.store(0)
    _age(cache.path, 80 * _DAY)
    build = cache.build([1], days=50)
    found = cache.collect(most_bytes=find_holdings(cache.root).size - 1)
    assert cache.numbers() == {1}
    assert cache.manifests() == {build}
    assert found.builds == ()


def test_gc_that_can_not_make_it_fit_says_so(cache: _Cache) -> None:
    kept = cache.build([0], days=50)
    cache.build([1], days=40)
    found = cache.collect(most_bytes=10, is_kept=lambda manifest: int(manifest.spec_digest[:32], 16) == 1)
    assert (found.fits, cache.manifests()) == (False, {kept})
    assert cache.numbers() == {0}


def test_gc_keep_manifests_drops_older_builds_of_the_same_spec_and_target(cache: _Cache) -> None:
    other_target = replace(make_manifest().target, name="gb200")
    cache.build([0], days=9)
    stays = {
        cache.build([1], days=8),
        cache.build([2], days=7, toolchain=_OTHER),
        cache.build([3], days=30, target=other_target),
        cache.build([4], days=40, spec="another"),
    }
    found = cache.collect(newest=2)
    assert len(found.builds) == 1
    assert cache.manifests() == stays
    assert cache.numbers() | cache.numbers(_OTHER.id) == {1, 2, 3, 4}


def test_gc_drops_a_toolchain_with_its_last_kernel(cache: _Cache) -> None:
    cache.build([0], days=9, toolchain=_OTHER)
    cache.build([0], days=1)
    cache.collect(most_seconds=5 * _DAY)
    assert [path.stem for path in cache.path.glob("toolchains/*")] == [make_toolchain().id]
    assert [path.stem for path in cache.path.glob("libraries/*")] == [make_toolchain().id]
    assert not list(cache.path.glob(f"*/{_OTHER.id}")), "empty folders go"
    assert cache.numbers() == {0}, "with the blob that both had"


def test_gc_of_everything_leaves_an_empty_cache_that_can_be_built_into(cache: _Cache) -> None:
    cache.build([0, 1], days=9)
    found = cache.collect(most_seconds=1 * _DAY)
    assert (found.left_builds, found.left_kernels, found.left_bytes) == (0, 0, 0)
    assert {path.name for path in cache.path.iterdir()} >= {"CACHEDIR.TAG", "README", "format.json", "records", "blobs"}
    cache.build([0, 1], days=0)
    assert cache.numbers() == {0, 1}


def test_gc_leaves_alone_what_is_not_ours(cache: _Cache) -> None:
    cache.build([0], days=9)
    record, kept = numbered_record(0), []
    for folder in (cache.path, record_file(cache.path, record).parent, blob_file(cache.path, record).parent):
        for name in (".nfs000000000012", "notes.txt", ".hidden"):
            kept.append(folder / name)
    kept += [cache.path / "toolchains" / "notes.json", cache.path / "blobs" / "sha256" / "mine" / ("f" * 64)]
    kept += [
        cache.path / "notes" / "ab" / "c" / "x.json",
        cache.path / "locks" / "0123.lock",
        cache.path / "origins" / "x",
    ]
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine\n")
    _age(cache.path, 9 * _DAY)
    collect(cache.root, Limits(most_seconds=1.0), is_real=True)
    assert cache.numbers() == set()
    assert [path for path in kept if not path.exists()] == []


# What stays


def test_gc_drops_nothing_that_is_younger_than_an_hour(cache: _Cache) -> None:
    cache.build([0], days=0)
    lost = cache.store(1)
    record_file(cache.path, lost).unlink()
    (cache.path / ".tmp-0123456789abcdef").write_bytes(b"half")
    before = set(find_holdings(cache.root).files)
    _age(cache.path, _HOUR - 60)
    for limits in ({}, {"most_seconds": 1.0}, {"most_bytes": 0}):
        assert cache.collect(**limits).dropped == ()
    assert set(find_holdings(cache.root).files) == before
    _age(cache.path, _HOUR + 60)
    assert len(cache.collect().dropped) == 3, "blob, origin and temporary file"
    assert len(cache.collect(most_bytes=0).builds) == 1


def test_gc_keeps_what_a_builder_confirms_or_writes_between_the_look_and_the_deleting(
    cache: _Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the very last moment: after all that can be asked of a name before it is unlinked."""
    old = cache.build([0, 1], days=40)
    lost = cache.store(2)
    record_file(cache.path, lost).unlink()
    _age(cache.path, 40 * _DAY)
    real = os.rename

    def rename(source: Any, target: Any, **folders: Any) -> None:
        if str(source) == old.name:
            assert cache.publisher.confirm(old.relative_to(cache.path).as_posix())
        if source == lost.blob:
            monkeypatch.setattr(os, "rename", real)
            cache.store(2)
            monkeypatch.setattr(os, "rename", rename)
        real(source, target, **folders)

    monkeypatch.setattr(os, "rename", rename)
    found = collect(cache.root, Limits(most_seconds=30 * _DAY), is_real=True)
    assert found.builds == ()
    assert cache.manifests() == {old}
    assert cache.numbers() == {0, 1, 2}
    assert verify_root(cache.root).findings == []
    assert temporaries(cache.path) == []


def test_gc_puts_back_what_it_has_taken_where_there_are_no_hard_links(
    cache: _Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = cache.build([0], days=40)
    real = os.rename

    def rename(source: Any, target: Any, **folders: Any) -> None:
        if source == old.name:
            os.utime(old)
        real(source, target, **folders)

    monkeypatch.setattr(os, "rename", rename)
    fail_call(monkeypatch, "link", 1, lambda *_: True)
    cache.collect(most_seconds=30 * _DAY)
    assert cache.manifests() == {old}
    assert temporaries(cache.path) == []


def test_gc_keeps_a_kernel_that_a_builder_has_adopted_though_its_build_goes(cache: _Cache) -> None:
    cache.build([0, 1], days=40)
    adopted = numbered_record(0)
    assert cache.publisher.confirm(layout.record_path(adopted.toolchain, adopted.id))
    found = cache.collect(most_seconds=30 * _DAY)
    assert len(found.builds) == 1
    assert cache.numbers() == {0}
    assert not cache.publisher.confirm(layout.record_path(adopted.toolchain, numbered_record(1).id))


def test_confirm_of_a_cache_that_can_not_be_written_says_what_is_there(
    cache: _Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = cache.build([0], days=40)
    before = snapshot(cache.path)
    fail_call(monkeypatch, "utime", 30, lambda path, *_: Path(path).exists())
    assert cache.publisher.confirm(manifest.relative_to(cache.path).as_posix())
    assert not cache.publisher.confirm("manifests/nothing.json")
    assert snapshot(cache.path) == before


def test_gc_dry_run_says_what_a_real_one_does_and_changes_nothing(cache: _Cache) -> None:
    cache.build([0, 1, 2], days=40)
    cache.build([2, 3], days=20)
    before = snapshot(cache.path)
    said = cache.collect(is_real=False, most_seconds=30 * _DAY)
    assert snapshot(cache.path) == before
    assert said == cache.collect(most_seconds=30 * _DAY)


# What is refused


def test_gc_of_a_sealed_cache_is_refused(cache: _Cache) -> None:
    cache.build([0], days=40)
    (cache.path / layout.SEAL).write_text("sealed")
    with pytest.raises(CacheError, match="is sealed, so nothing of it may go"):
        collect(cache.root, Limits(most_bytes=0), is_real=True)
    (cache.path / layout.SEAL).unlink()  # it is none
    assert cache.numbers() == {0}


@pytest.mark.parametrize("kind", ["manifests", "records", "libraries"])
def test_gc_of_a_cache_with_damage_drops_nothing_as_it_can_not_know_what_is_needed(cache: _Cache, kind: str) -> None:
    cache.build([0, 1], days=40)
    cache.build([2], days=50, toolchain=_OTHER)
    damaged = next((cache.path / kind).rglob("*.json"))
    overwrite(damaged, damaged.read_bytes().replace(b"synthetic", b"synthetjc", 1).replace(b"libcute", b"libcutf"))
    before = snapshot(cache.path)
    with pytest.raises(RecordError) as caught:
        collect(cache.root, Limits(most_bytes=0), is_real=True)
    assert "repair" in caught.value.hint
    assert snapshot(cache.path) == before


@pytest.mark.parametrize("where", ["blobs/sha256", "records", "manifests", "origins", "toolchains"])
def test_gc_of_a_cache_with_a_folder_of_somebody_else_is_refused_and_drops_nothing(
    cache: _Cache, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    cache.build([0], days=40)
    before = {path.relative_to(cache.path) for path in cache.path.rglob("*")}
    inner = [path for path in (cache.path / where).iterdir() if path.is_dir()] or [cache.path / where]
    inner[0].chmod(0o775)
    with pytest.raises(UntrustedError, match="others can write it"):
        collect(cache.root, Limits(most_bytes=0), is_real=True)
    inner[0].chmod(0o755)
    monkeypatch.setattr(os, "geteuid", give_away(inner[0]))
    with pytest.raises(UntrustedError, match="it belongs to user"):
        collect(cache.root, Limits(most_bytes=0), is_real=True)
    assert {path.relative_to(cache.path) for path in cache.path.rglob("*")} == before


def test_gc_follows_no_symlink_below_the_root(cache: _Cache, tmp_path: Path) -> None:
    cache.build([0], days=40)
    outside = tmp_path / "outside"
    lost = cache.store(1)
    record_file(cache.path, lost).unlink()
    shutil.move(cache.path / "origins", outside)
    (cache.path / "origins").symlink_to(outside)
    link = blob_file(cache.path, lost)
    link.rename(outside / "blob")
    link.symlink_to(outside / "blob")
    _age(cache.path, 40 * _DAY)
    before = snapshot(outside)
    collect(cache.root, Limits(most_bytes=0), is_real=True)
    assert snapshot(outside) == before
    assert link.is_symlink()


def test_gc_folder_swapped_for_a_symlink_while_it_works_is_not_followed(
    cache: _Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.build([0], days=40)
    outside = tmp_path / "outside"
    real = gc_module._chosen

    def swap(*arguments: Any) -> Any:
        shutil.move(cache.path / "records", outside)
        (cache.path / "records").symlink_to(outside)
        return real(*arguments)

    monkeypatch.setattr(gc_module, "_chosen", swap)
    with pytest.raises(UntrustedError, match="symlink"):
        collect(cache.root, Limits(most_bytes=0), is_real=True)
    assert len(list(outside.rglob("*.json"))) == 1


def test_gc_that_the_system_refuses_is_one_sentence(cache: _Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.build([0], days=40)
    fail_call(monkeypatch, "rename", 30, lambda *_: True)
    with pytest.raises(MachineError, match=r"can't delete from the cache .*Read-only file system"):
        collect(cache.root, Limits(most_bytes=0), is_real=True)
    assert cache.numbers() == {0}


# Beside others


def test_gc_killed_at_each_step_leaves_a_cache_that_is_whole(cache: _Cache, tmp_path: Path) -> None:
    cache.build([0, 1, 2], days=40)
    cache.build([2, 3], days=20, toolchain=_OTHER)
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
        collect(Root(copy), Limits(most_seconds=15 * _DAY), is_real=True)
        assert isinstance(Root(copy).find(make_toolchain().id, numbered_record(3).id), Hit)
        shutil.rmtree(copy)
    assert killed >= 10


def _collect_and_die(path: Path, step: int) -> None:
    """Collect, and be killed just before the call of that number which changes a name."""
    die_before(step, "rename", "unlink", "rmdir")
    collect(Root(path), Limits(most_seconds=15 * _DAY), is_real=True)


@pytest.mark.chance
def test_gc_killed_at_any_moment_leaves_a_cache_that_is_whole(cache: _Cache) -> None:
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    for day in range(40, 0, -1):
        cache.build(range(day % 7, day % 7 + 8), days=day, spec=f"spec-{day}")
    process = start(collect, cache.root, Limits(most_seconds=2 * _DAY), True)
    time.sleep(moments.uniform(0, 0.4))
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join(60)
    assert verify_root(cache.root).findings == [], f"seed {seed}"
    cache.collect(most_seconds=2 * _DAY)
    assert cache.numbers() == set(range(1, 9))


def test_gc_beside_a_reader_that_keeps_folders_is_a_miss_and_a_new_build_is_found(cache: _Cache) -> None:
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
    cache: _Cache, monkeypatch: pytest.MonkeyPatch
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
    cache: _Cache, monkeypatch: pytest.MonkeyPatch
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
    cache: _Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = cache.store(0)
    (cache.path / ".tmp-0123456789abcdef").write_bytes(b"half")
    _age(cache.path, 40 * _DAY)
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


def test_sync_of_a_folder_that_gc_has_taken_away_is_no_error(cache: _Cache) -> None:
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
    cache: _Cache, tmp_path: Path, number: int
) -> None:
    cache.build([0, 1], days=0)
    there = _Cache(tmp_path / "there")
    there.store(0)
    _age(there.path, 40 * _DAY)
    contents: Contents = list_contents(cache.root)
    with pytest.raises(CarryError, match="was deleted before all had arrived"):
        receive(_Slow(cache.root, there.path, number), there.publisher, contents)
    assert not there.manifests()
    receive(RootSource(cache.root), there.publisher, contents)
    assert verify_root(there.root).findings == []
    assert there.collect(most_bytes=0).dropped == (), "what was there already is confirmed"


# The command


@pytest.fixture
def quickstart(tmp_path: Path) -> Path:
    """A cache with a build of a shipped spec, and one of another, both a year old."""
    path = tmp_path / "cache"
    finished_cache(path, find_spec("quickstart"), make_toolchain(), "b200")
    cache = _Cache(path)
    cache.build([5, 6], days=0)
    _age(path, 365 * _DAY)
    return path


def test_gc_command_says_in_a_sentence_what_went_and_what_remains(cli: Cli, quickstart: Path) -> None:
    done = cli("gc", "--cache", quickstart, "--max-age", "30d", "--keep", "quickstart")
    assert (done.code, done.out) == (0, "")
    assert done.err.startswith("1 build, 2 kernels, 0.0 MB dropped; 1 build, 2 kernels, 0.0 MB remain in `")
    assert cli("verify", "--cache", quickstart).code == 0
    (manifest,) = Root(quickstart).manifests()
    assert isinstance(manifest, Manifest)
    assert manifest.spec_digest == read_spec(find_spec("quickstart"), target_book()).digest


def test_gc_command_dry_run_has_a_line_for_each_file(cli: Cli, quickstart: Path) -> None:
    before = snapshot(quickstart)
    done = cli("gc", "--cache", quickstart, "--max-age", "30d", "--dry-run")
    report = documents(cli("gc", "--cache", quickstart, "--max-age", "30d", "--dry-run", "--json"))
    assert snapshot(quickstart) == before
    assert "2 builds, 4 kernels" in done.err
    assert "would go; 0 builds, 0 kernels, 0.0 MB would remain" in done.err
    lines = done.out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [file["path"] for file in report["files"]]
    assert "synthetic for b200, last built 20" in done.out
    assert (report["kernels"], report["dry_run"], len(report["builds"])) == (4, True, 2)
    assert report["bytes"] == sum(file["bytes"] for file in report["files"])


def test_gc_command_json_counts_and_that_does_not_fit_ends_with_one(cli: Cli, quickstart: Path) -> None:
    done = cli("gc", "--cache", quickstart, "--max-size", "10B", "--keep", "quickstart", "--json")
    report = documents(done)
    assert done.code == 1
    assert "more than `--max-size`" in done.err
    assert (report["fits"], report["remaining"]["builds"], report["remaining"]["kernels"]) == (False, 1, 2)


def test_gc_command_names_a_spec_to_keep_that_has_no_build(cli: Cli, quickstart: Path) -> None:
    assert "`fa4_sm90` has no build in" in cli("gc", "--cache", quickstart, "--keep", "fa4_sm90").err


@pytest.mark.parametrize(
    "option",
    [
        ("--max-size", "10"),
        ("--max-size", "1.5GB"),
        ("--max-size", "500 MiB"),
        ("--max-age", "12h"),
        ("--max-age", "2w"),
    ],
)
def test_gc_command_takes_sizes_and_ages(cli: Cli, quickstart: Path, option: tuple[str, str]) -> None:
    assert cli("gc", "--cache", quickstart, *option, "--dry-run").code == 0


@pytest.mark.parametrize(
    ("quantity", "text", "number"),
    [
        (Quantity("size", SIZE_UNITS, ""), "10", 10),
        (Quantity("size", SIZE_UNITS, ""), "1.5GB", 1_500_000_000),
        (Quantity("size", SIZE_UNITS, ""), "500 MiB", 500 << 20),
        (Quantity("age", AGE_UNITS, ""), "12h", 43_200),
        (Quantity("age", AGE_UNITS, ""), "2w", 1_209_600),
    ],
)
def test_quantity_is_what_its_unit_says(quantity: Quantity, text: str, number: int) -> None:
    assert quantity.convert(text, None, None) == number


@pytest.mark.parametrize(
    "option",
    [
        ("--max-size", "10gigs"),
        ("--max-size", "-1GB"),
        ("--max-size", ""),
        ("--max-size", "nan"),
        ("--max-age", "30"),
        ("--max-age", "1y"),
        ("--keep-manifests", "0"),
        ("--keep", "no-such-spec"),
    ],
)
def test_gc_command_refuses_what_is_no_limit(cli: Cli, quickstart: Path, option: tuple[str, str]) -> None:
    before = snapshot(quickstart)
    assert cli("gc", "--cache", quickstart, *option).code == 2
    assert snapshot(quickstart) == before


def test_gc_command_ends_as_the_others_where_it_is_refused(cli: Cli, quickstart: Path, tmp_path: Path) -> None:
    assert "does not exist" in require_error(cli("gc", "--cache", tmp_path / "nowhere", "--json"), 2)
    Publisher(Root(quickstart)).publish_seal(list_contents(Root(quickstart)).render())
    assert "is sealed" in require_error(cli("gc", "--cache", quickstart, "--json"), 2)
    (quickstart / "seal").unlink()
    (quickstart / "blobs").chmod(0o777)
    assert "others can write it" in require_error(cli("gc", "--cache", quickstart, "--json"), 4)


def test_build_with_nothing_to_do_confirms_its_build_and_changes_nothing_else(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = read_spec(find_spec("quickstart"), target_book())
    finished_cache(tmp_path / "cache", find_spec("quickstart"), make_toolchain(), "b200")
    _age(tmp_path / "cache", 40 * _DAY)
    before = snapshot(tmp_path / "cache")
    root = Root(tmp_path / "cache")
    assert finished_report(root, spec, target_book().get("b200"), make_toolchain(), 0.0)
    after = snapshot(tmp_path / "cache")
    assert [path for path in after if after[path] != before[path]] == [
        path for path in after if path.startswith("manifests/") and path.endswith(".json")
    ]
    assert collect(root, Limits(most_bytes=0), is_real=True).builds == ()
    monkeypatch.setattr(Publisher, "confirm", lambda *_: False)  # `gc` has dropped it meanwhile
    assert finished_report(root, spec, target_book().get("b200"), make_toolchain(), 0.0) is None

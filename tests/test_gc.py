"""Keeping a cache small: what may go goes, all that is needed stays, and what can't be known is refused."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aging import DAY, HOUR, OTHER, Aging, age
from fa4_precompile.cache import gc as gc_module
from fa4_precompile.cache import layout
from fa4_precompile.cache.gc import Limits, collect
from fa4_precompile.cache.holdings import find_holdings
from fa4_precompile.cache.outcome import Hit
from fa4_precompile.cache.verify import verify_root
from fa4_precompile.errors import CacheError, MachineError, RecordError, UntrustedError
from support import (
    blob_file,
    fail_call,
    give_away,
    make_manifest,
    make_toolchain,
    numbered_record,
    overwrite,
    publish_library,
    record_file,
    snapshot,
    temporaries,
)


@pytest.fixture
def cache(tmp_path: Path) -> Aging:
    """A cache with nothing in it."""
    return Aging(tmp_path / "cache")


# What goes


def test_gc_without_limits_drops_what_nothing_names_and_nothing_else(cache: Aging) -> None:
    cache.build([0, 1], days=90)
    stored, lost = cache.store(2), cache.store(3)
    cache.publisher.publish_toolchain(OTHER)
    publish_library(cache.publisher, OTHER)
    record_file(cache.path, lost).unlink()
    (cache.path / "blobs" / "sha256" / "ab").mkdir(exist_ok=True)
    (cache.path / "blobs" / "sha256" / "ab" / ".tmp-0123456789abcdef").write_bytes(b"half")
    age(cache.path, 90 * DAY)
    found = cache.collect()
    reasons = {one.path: one.reason for one in found.dropped}
    assert reasons == {
        layout.origin_path(lost.toolchain, lost.id): "its kernel is gone",
        layout.library_path(OTHER.id): "no kernel is of its toolchain",
        layout.toolchain_path(OTHER.id): "no kernel is of it",
        layout.blob_path(lost.blob): "no record names it",
        "blobs/sha256/ab/.tmp-0123456789abcdef": "it was never finished",
    }
    assert cache.numbers() == {0, 1, 2}
    assert isinstance(cache.root.find(stored.toolchain, stored.id), Hit), "of no build, and without a limit it stays"
    assert (found.kernels, found.builds, found.left_builds, found.left_kernels) == (0, (), 1, 3)


def test_gc_max_age_drops_builds_and_stored_kernels_that_are_older_and_keeps_what_others_share(cache: Aging) -> None:
    old, new = cache.build([0, 1, 2], days=40), cache.build([2, 3], days=20)
    cache.store(4)
    age(record_file(cache.path, numbered_record(4)), 50 * DAY)
    cache.store(5)
    found = cache.collect(most_seconds=30 * DAY)
    assert cache.manifests() == {new}
    assert [build.path for build in found.builds] == [old.relative_to(cache.path).as_posix()]
    assert cache.numbers() == {2, 3, 5}
    assert (found.kernels, found.left_kernels) == (3, 3)


def test_gc_max_size_drops_the_oldest_until_the_rest_fits(cache: Aging) -> None:
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


def test_gc_max_size_counts_the_kernels_that_a_job_stored_by_their_own_age(cache: Aging) -> None:
    cache.store(0)
    age(cache.path, 80 * DAY)
    build = cache.build([1], days=50)
    found = cache.collect(most_bytes=find_holdings(cache.root).size - 1)
    assert cache.numbers() == {1}
    assert cache.manifests() == {build}
    assert found.builds == ()


def test_gc_that_can_not_make_it_fit_says_so(cache: Aging) -> None:
    kept = cache.build([0], days=50)
    cache.build([1], days=40)
    found = cache.collect(most_bytes=10, is_kept=lambda manifest: int(manifest.spec_digest[:32], 16) == 1)
    assert (found.fits, cache.manifests()) == (False, {kept})
    assert cache.numbers() == {0}


def test_gc_keep_manifests_drops_older_builds_of_the_same_spec_and_target(cache: Aging) -> None:
    other_target = replace(make_manifest().target, name="gb200")
    cache.build([0], days=9)
    stays = {
        cache.build([1], days=8),
        cache.build([2], days=7, toolchain=OTHER),
        cache.build([3], days=30, target=other_target),
        cache.build([4], days=40, spec="another"),
    }
    found = cache.collect(newest=2)
    assert len(found.builds) == 1
    assert cache.manifests() == stays
    assert cache.numbers() | cache.numbers(OTHER.id) == {1, 2, 3, 4}


def test_gc_drops_a_toolchain_with_its_last_kernel(cache: Aging) -> None:
    cache.build([0], days=9, toolchain=OTHER)
    cache.build([0], days=1)
    cache.collect(most_seconds=5 * DAY)
    assert [path.stem for path in cache.path.glob("toolchains/*")] == [make_toolchain().id]
    assert [path.stem for path in cache.path.glob("libraries/*")] == [make_toolchain().id]
    assert not list(cache.path.glob(f"*/{OTHER.id}")), "empty folders go"
    assert cache.numbers() == {0}, "with the blob that both had"


def test_gc_of_everything_leaves_an_empty_cache_that_can_be_built_into(cache: Aging) -> None:
    cache.build([0, 1], days=9)
    found = cache.collect(most_seconds=1 * DAY)
    assert (found.left_builds, found.left_kernels, found.left_bytes) == (0, 0, 0)
    assert {path.name for path in cache.path.iterdir()} >= {"CACHEDIR.TAG", "README", "format.json", "records", "blobs"}
    cache.build([0, 1], days=0)
    assert cache.numbers() == {0, 1}


def test_gc_leaves_alone_what_is_not_ours(cache: Aging) -> None:
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
    age(cache.path, 9 * DAY)
    collect(cache.root, Limits(most_seconds=1.0), is_real=True)
    assert cache.numbers() == set()
    assert [path for path in kept if not path.exists()] == []


# What stays


def test_gc_drops_nothing_that_is_younger_than_an_hour(cache: Aging) -> None:
    cache.build([0], days=0)
    lost = cache.store(1)
    record_file(cache.path, lost).unlink()
    (cache.path / ".tmp-0123456789abcdef").write_bytes(b"half")
    before = set(find_holdings(cache.root).files)
    age(cache.path, HOUR - 60)
    for limits in ({}, {"most_seconds": 1.0}, {"most_bytes": 0}):
        assert cache.collect(**limits).dropped == ()
    assert set(find_holdings(cache.root).files) == before
    age(cache.path, HOUR + 60)
    assert len(cache.collect().dropped) == 3, "blob, origin and temporary file"
    assert len(cache.collect(most_bytes=0).builds) == 1


def test_gc_keeps_what_a_builder_confirms_or_writes_between_the_look_and_the_deleting(
    cache: Aging, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the very last moment: after all that can be asked of a name before it is unlinked."""
    old = cache.build([0, 1], days=40)
    lost = cache.store(2)
    record_file(cache.path, lost).unlink()
    age(cache.path, 40 * DAY)
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
    found = collect(cache.root, Limits(most_seconds=30 * DAY), is_real=True)
    assert found.builds == ()
    assert cache.manifests() == {old}
    assert cache.numbers() == {0, 1, 2}
    assert verify_root(cache.root).findings == []
    assert temporaries(cache.path) == []


def test_gc_puts_back_what_it_has_taken_where_there_are_no_hard_links(
    cache: Aging, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = cache.build([0], days=40)
    real = os.rename

    def rename(source: Any, target: Any, **folders: Any) -> None:
        if source == old.name:
            os.utime(old)
        real(source, target, **folders)

    monkeypatch.setattr(os, "rename", rename)
    fail_call(monkeypatch, "link", 1, lambda *_: True)
    cache.collect(most_seconds=30 * DAY)
    assert cache.manifests() == {old}
    assert temporaries(cache.path) == []


def test_gc_keeps_a_kernel_that_a_builder_has_adopted_though_its_build_goes(cache: Aging) -> None:
    cache.build([0, 1], days=40)
    adopted = numbered_record(0)
    assert cache.publisher.confirm(layout.record_path(adopted.toolchain, adopted.id))
    found = cache.collect(most_seconds=30 * DAY)
    assert len(found.builds) == 1
    assert cache.numbers() == {0}
    assert not cache.publisher.confirm(layout.record_path(adopted.toolchain, numbered_record(1).id))


def test_confirm_of_a_cache_that_can_not_be_written_says_what_is_there(
    cache: Aging, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = cache.build([0], days=40)
    before = snapshot(cache.path)
    fail_call(monkeypatch, "utime", 30, lambda path, *_: Path(path).exists())
    assert cache.publisher.confirm(manifest.relative_to(cache.path).as_posix())
    assert not cache.publisher.confirm("manifests/nothing.json")
    assert snapshot(cache.path) == before


def test_gc_dry_run_says_what_a_real_one_does_and_changes_nothing(cache: Aging) -> None:
    cache.build([0, 1, 2], days=40)
    cache.build([2, 3], days=20)
    before = snapshot(cache.path)
    said = cache.collect(is_real=False, most_seconds=30 * DAY)
    assert snapshot(cache.path) == before
    assert said == cache.collect(most_seconds=30 * DAY)


# What is refused


def test_gc_of_a_sealed_cache_is_refused(cache: Aging) -> None:
    cache.build([0], days=40)
    (cache.path / layout.SEAL).write_text("sealed")
    with pytest.raises(CacheError, match="is sealed, so nothing of it may go"):
        collect(cache.root, Limits(most_bytes=0), is_real=True)
    (cache.path / layout.SEAL).unlink()  # it is none
    assert cache.numbers() == {0}


@pytest.mark.parametrize("kind", ["manifests", "records", "libraries"])
def test_gc_of_a_cache_with_damage_drops_nothing_as_it_can_not_know_what_is_needed(cache: Aging, kind: str) -> None:
    cache.build([0, 1], days=40)
    cache.build([2], days=50, toolchain=OTHER)
    damaged = next((cache.path / kind).rglob("*.json"))
    overwrite(damaged, damaged.read_bytes().replace(b"synthetic", b"synthetjc", 1).replace(b"libcute", b"libcutf"))
    before = snapshot(cache.path)
    with pytest.raises(RecordError) as caught:
        collect(cache.root, Limits(most_bytes=0), is_real=True)
    assert "repair" in caught.value.hint
    assert snapshot(cache.path) == before


@pytest.mark.parametrize("where", ["blobs/sha256", "records", "manifests", "origins", "toolchains"])
def test_gc_of_a_cache_with_a_folder_of_somebody_else_is_refused_and_drops_nothing(
    cache: Aging, monkeypatch: pytest.MonkeyPatch, where: str
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


def test_gc_follows_no_symlink_below_the_root(cache: Aging, tmp_path: Path) -> None:
    cache.build([0], days=40)
    outside = tmp_path / "outside"
    lost = cache.store(1)
    record_file(cache.path, lost).unlink()
    shutil.move(cache.path / "origins", outside)
    (cache.path / "origins").symlink_to(outside)
    link = blob_file(cache.path, lost)
    link.rename(outside / "blob")
    link.symlink_to(outside / "blob")
    age(cache.path, 40 * DAY)
    before = snapshot(outside)
    collect(cache.root, Limits(most_bytes=0), is_real=True)
    assert snapshot(outside) == before
    assert link.is_symlink()


def test_gc_folder_swapped_for_a_symlink_while_it_works_is_not_followed(
    cache: Aging, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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


def test_gc_that_the_system_refuses_is_one_sentence(cache: Aging, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.build([0], days=40)
    fail_call(monkeypatch, "rename", 30, lambda *_: True)
    with pytest.raises(MachineError, match=r"can't delete from the cache .*Read-only file system"):
        collect(cache.root, Limits(most_bytes=0), is_real=True)
    assert cache.numbers() == {0}

"""`merge`: parts of builds that several machines made, put together in one cache."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fa4_precompile.cache.key import BlobDigest
from fa4_precompile.cache.listing import list_contents
from fa4_precompile.cache.manifest import Manifest, Reaching
from fa4_precompile.cache.origin import Origin
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.record import Record
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.verify import verify_root
from fa4_precompile.carry import merge as merge_module
from fa4_precompile.carry.merge import Merged, Place, merge
from fa4_precompile.carry.root import RootSource
from fa4_precompile.errors import CacheError, RefusedError
from product import run
from support import (
    blob_file,
    event,
    join,
    make_manifest,
    make_origin,
    make_toolchain,
    numbered_record,
    overwrite,
    publish_library,
    record_file,
    start,
    synthetic_blob,
)

_KERNELS = 24
_SHARDS = 8


def _label(number: int) -> str:
    return f"fwd of call {number}"


def _part(path: Path, here: Sequence[int], failed: Sequence[int] = (), **changes: Any) -> Path:
    """Make the cache of a shard that has built some kernels, one for each call of the spec."""
    publisher = Publisher(Root(path))
    publisher.create()
    publisher.publish_toolchain(make_toolchain())
    publish_library(publisher, make_toolchain())
    records = {number: numbered_record(number) for number in range(_KERNELS)}
    for number in here:
        publisher.publish(records[number], synthetic_blob(number), make_origin(records[number]))
    manifest = make_manifest(
        *(records[number] for number in here),
        variants=_KERNELS,
        calls=[
            Reaching({"pass": "fwd", "head_dim": number}, {}, [record.id] if number in here else [])
            for number, record in records.items()
        ],
        failed={_label(number): "why" for number in failed},
        left={_label(number): f"{number % _SHARDS + 1}/{_SHARDS}" for number in {*records} - {*here} - {*failed}},
    )
    publisher.publish_manifest(replace(manifest, **changes))
    publisher.sync()
    return path


def _shard(number: int) -> list[int]:
    return [kernel for kernel in range(_KERNELS) if kernel % _SHARDS + 1 == number]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of a build that is not sharded."""
    return _part(tmp_path_factory.mktemp("whole") / "cache", range(_KERNELS))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Path]:
    """The caches of eight shards. Tests that change one copy it first."""
    folder = tmp_path_factory.mktemp("shards")
    return [_part(folder / str(number), _shard(number)) for number in range(1, _SHARDS + 1)]


def _place(path: Path) -> Place:
    source = RootSource(Root(path))
    return Place(source, source.contents())


def _merge(into: Path, *places: Path, arrived: Callable[[int], None] = lambda size: None) -> Merged:
    return merge([_place(path) for path in places], Root(into), lambda words: None, arrived)


def _fingerprint(path: Path) -> str:
    return list_contents(Root(path)).fingerprint


def _manifest(path: Path) -> Manifest:
    (found,) = Root(path).manifests()
    assert isinstance(found, Manifest)
    return found


def _copied(path: Path, to: Path) -> Path:
    shutil.copytree(path, to)
    return to


def test_merge_of_all_shards_in_any_order_is_the_whole_build(
    shards: Sequence[Path], whole: Path, tmp_path: Path
) -> None:
    for attempt in range(3):
        into = tmp_path / str(attempt)
        shuffled = random.sample(shards, len(shards))
        done = _merge(into, *shuffled)
        assert [build.complete for build in done.builds] == [True]
        assert _fingerprint(into) == _fingerprint(whole), shuffled
        assert verify_root(Root(into)).findings == []


def test_merge_one_by_one_and_twice_is_the_same(shards: Sequence[Path], whole: Path, tmp_path: Path) -> None:
    into = tmp_path / "into"
    for path in [*random.sample(shards, len(shards)), *shards[:2]]:
        _merge(into, path, path)
    assert _fingerprint(into) == _fingerprint(whole)
    again = _merge(into, *shards)
    assert (again.came, again.bytes, again.others) == (0, 0, 0)
    assert _fingerprint(into) == _fingerprint(whole)


def test_merge_of_some_shards_is_the_same_in_any_order_and_says_what_is_left(
    shards: Sequence[Path], tmp_path: Path
) -> None:
    some = [shards[0], shards[4], shards[6]]
    for number, order in enumerate(itertools.permutations(some)):
        _merge(tmp_path / str(number), *order)
    assert len({_fingerprint(tmp_path / str(number)) for number in range(6)}) == 1
    manifest = _manifest(tmp_path / "0")
    assert len(manifest.kernels) == 9
    assert set(manifest.left) == {_label(kernel) for shard in (2, 3, 4, 6, 8) for kernel in _shard(shard)}
    assert not manifest.complete
    done = run("merge", tmp_path / "cli", *some)
    assert done.code == 1
    assert (
        done.out == "synthetic for b200: 9 kernels, not complete, 15 kernels left to shards 2/8, 3/8, 4/8, 6/8, 8/8\n"
    )
    completed = run("merge", tmp_path / "cli", *shards, "--json")
    assert completed.code == 0, completed.err
    said = json.loads(completed.out)
    assert (said["fingerprint"], said["places"], said["other_bytes"]) == (_fingerprint(tmp_path / "cli"), 8, 0)
    (build,) = said["builds"]
    assert (build["kernels"], build["complete"], build["left"], build["failed"]) == (_KERNELS, True, {}, {})


def test_merge_takes_packs_and_urls_as_well(shards: Sequence[Path], whole: Path, tmp_path: Path) -> None:
    pytest.importorskip("zstandard", reason="the extra `ship` is not installed")
    pytest.importorskip("fsspec", reason="the extra `ship` is not installed")
    pack, tree = tmp_path / "one.tar.zst", (tmp_path / "tree").as_uri()
    assert run("pack", pack, "--cache", shards[0]).code == 0
    assert run("push", tree, "--cache", shards[1]).code == 0
    done = run("merge", tmp_path / "into", pack, tree, *shards[2:])
    assert done.code == 0, done.err
    assert done.out == f"synthetic for b200: {_KERNELS} kernels, complete\n"
    assert _fingerprint(tmp_path / "into") == _fingerprint(whole)


def test_merge_refuses_a_place_that_nobody_vouches_for_before_anything_is_written(
    shards: Sequence[Path], tmp_path: Path
) -> None:
    sealed = _copied(shards[0], tmp_path / "sealed")
    fingerprint = run("seal", "--cache", sealed).out.strip()
    refused = run("merge", tmp_path / "into", sealed, shards[1], "--expect", fingerprint)
    assert (refused.code, (tmp_path / "into").exists()) == (4, False)
    assert run("merge", tmp_path / "into", sealed, "--expect", fingerprint).code == 1  # of eight shards it is one
    assert _manifest(tmp_path / "into") == _manifest(sealed)


# Kernels that failed


def _merged(into: Path, *places: Path) -> Manifest:
    _merge(into, *places)
    return _manifest(into)


def test_merge_a_failure_that_another_has_built_is_none(whole: Path, tmp_path: Path) -> None:
    bad = _part(tmp_path / "bad", [0, 1], failed=[2])
    rest = _part(tmp_path / "rest", range(3, _KERNELS))
    good = _part(tmp_path / "good", [2])
    for number, order in enumerate(itertools.permutations([bad, rest])):
        manifest = _merged(tmp_path / f"without {number}", *order)
        assert (manifest.failed, manifest.left) == ({_label(2): "why"}, {})
        assert _merged(tmp_path / f"without {number}", good).complete
        assert _fingerprint(tmp_path / f"without {number}") == _fingerprint(whole)


def test_merge_of_two_reasons_for_a_failure_keeps_the_same_in_any_order(tmp_path: Path) -> None:
    one = _part(tmp_path / "one", [0], failed=[2])
    other = _part(tmp_path / "other", [1], failed=[2])
    Publisher(Root(other)).publish_manifest(replace(_manifest(other), failed={_label(2): "another reason"}))
    there, back = _merged(tmp_path / "a", one, other), _merged(tmp_path / "b", other, one)
    assert there == back
    assert there.failed == {_label(2): "another reason"}


# Damage


def test_merge_of_a_damaged_place_is_refused_and_what_was_taken_stays(
    shards: Sequence[Path], whole: Path, tmp_path: Path
) -> None:
    bad, into = _copied(shards[3], tmp_path / "bad"), tmp_path / "into"
    overwrite(blob_file(bad, numbered_record(3)), b"x" * numbered_record(3).blob_bytes)
    done = run("merge", into, *shards[:3], bad, *shards[4:])
    assert done.code == 4
    assert f"refused, `{bad}`: `blobs/" in done.err
    assert list(Root(into).manifests()) == []  # nothing says that a build is there
    assert verify_root(Root(into)).findings == []
    assert _merged(into, *shards).complete
    assert _fingerprint(into) == _fingerprint(whole)


def test_merge_mends_what_is_damaged_in_the_cache(shards: Sequence[Path], whole: Path, tmp_path: Path) -> None:
    into = _copied(shards[0], tmp_path / "into")
    overwrite(blob_file(into, numbered_record(0)), b"x")
    record_file(into, numbered_record(8)).unlink()
    _merge(into, *shards)
    assert _fingerprint(into) == _fingerprint(whole)
    assert verify_root(Root(into)).findings == []


def test_merge_does_not_believe_a_manifest_whose_kernels_are_gone(
    shards: Sequence[Path], whole: Path, tmp_path: Path
) -> None:
    into = _copied(shards[0], tmp_path / "into")
    record_file(into, numbered_record(0)).unlink()
    manifest = _merged(into, *shards[1:])
    assert set(manifest.left) == {_label(kernel) for kernel in _shard(1)}
    assert verify_root(Root(into)).findings == []
    assert _merged(into, shards[0]).complete
    assert _fingerprint(into) == _fingerprint(whole)


# Other bytes


def _other(path: Path, number: int, word: bytes) -> Record:
    """Publish a kernel with other bytes than it usually has."""
    blob = synthetic_blob(number) + word
    record = replace(numbered_record(number), blob=BlobDigest(hashlib.sha256(blob).hexdigest()), blob_bytes=len(blob))
    Publisher(Root(path)).publish(record, blob)
    return record


def test_merge_keeps_a_sound_kernel_though_a_place_has_other_bytes(
    shards: Sequence[Path], whole: Path, tmp_path: Path
) -> None:
    other, into = _copied(shards[0], tmp_path / "other"), _copied(whole, tmp_path / "into")
    record = _other(other, 0, b"other")
    done = run("merge", into, other, *shards[1:])
    assert done.code == 0
    assert "1 kernel came with other bytes, too: what was here stays, else one was kept" in done.err
    assert _fingerprint(into) == _fingerprint(whole)
    assert not blob_file(into, record).exists()


def test_merge_of_places_with_other_bytes_keeps_the_same_in_any_order(shards: Sequence[Path], tmp_path: Path) -> None:
    others = [_copied(shards[0], tmp_path / f"other {number}") for number in range(3)]
    for number, path in enumerate(others):
        _other(path, 0, b"%d" % number)
    places = [*others, *shards]
    done = [_merge(tmp_path / str(number), *random.sample(places, len(places))) for number in range(4)]
    assert {one.others for one in done} == {1}
    assert len({_fingerprint(tmp_path / str(number)) for number in range(4)}) == 1
    assert verify_root(Root(tmp_path / "0")).findings == []


# What is refused


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"variants": 99}, "one has 24 calls, the other 99"),
        (
            {"excluded": []},
            "one excludes `pass=bwd head_dim=96: the provider's synthetic reason` where the other does `n",
        ),
        ({"calls": []}, "one reaches kernels by `pass=fwd head_dim=0` where the other does by `nothing`"),
    ],
)
def test_merge_of_builds_that_were_not_planned_alike_is_refused(
    shards: Sequence[Path], tmp_path: Path, change: Mapping[str, Any], words: str
) -> None:
    other = _part(tmp_path / "other", _shard(2), **change)
    with pytest.raises(RefusedError, match="was not planned as that of") as caught:
        _merge(tmp_path / "into", shards[0], other, shards[2])
    assert words in str(caught.value)
    assert caught.value.place == str(other)
    assert not (tmp_path / "into").exists()
    _merge(tmp_path / "into", shards[0])
    before = _fingerprint(tmp_path / "into")
    with pytest.raises(RefusedError, match="was not planned as that of"):  # as the one that is there
        _merge(tmp_path / "into", other)
    assert _fingerprint(tmp_path / "into") == before


def test_merge_into_a_sealed_cache_is_refused_with_what_to_do(shards: Sequence[Path], tmp_path: Path) -> None:
    into = _copied(shards[0], tmp_path / "into")
    assert run("seal", "--cache", into).code == 0
    with pytest.raises(CacheError, match="is sealed, so nothing is merged into it") as caught:
        _merge(into, *shards[1:])
    assert caught.value.hint == f"merge into a new folder, with `{into}` as one of the places"
    assert _merged(tmp_path / "new", into, *shards[1:]).complete


def test_merge_into_what_is_no_cache_is_refused(shards: Sequence[Path], tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(CacheError, match="holds files, but is no kernel cache"):
        _merge(tmp_path, shards[0])


# Several builds, and what is beside the kernels


def test_merge_keeps_builds_of_other_specs_apart(shards: Sequence[Path], tmp_path: Path) -> None:
    other = _part(tmp_path / "other", [0], spec="another", spec_digest="e" * 64)
    done = run("merge", tmp_path / "into", *shards, other)
    assert done.code == 1
    assert sorted(line.partition(",")[0] for line in done.out.splitlines()) == [
        "another for b200: 1 kernel",
        f"synthetic for b200: {_KERNELS} kernels",
    ]
    assert run("merge", tmp_path / "into", *shards).code == 0  # none of them has brought the other


def test_merge_brings_where_kernels_come_from_and_leaves_what_is_here(shards: Sequence[Path], tmp_path: Path) -> None:
    into = _copied(shards[0], tmp_path / "into")
    slower = _copied(shards[0], tmp_path / "slower")
    record = numbered_record(0)
    file = next((slower / "origins").rglob(f"{record.id}.json"))
    overwrite(file, make_origin(record, compile_seconds=99.0).render_file())
    _merge(into, slower, *shards[1:])
    origins = [origin for origin in Root(into).origins() if isinstance(origin, Origin)]
    assert {origin.kernel for origin in origins} == {numbered_record(number).id for number in range(_KERNELS)}
    assert {origin.compile_seconds for origin in origins} == {9.512}


def test_merge_of_a_place_without_a_manifest_brings_its_kernels(shards: Sequence[Path], tmp_path: Path) -> None:
    killed = _copied(shards[0], tmp_path / "killed")
    shutil.rmtree(killed / "manifests")
    done = _merge(tmp_path / "into", killed)
    assert (done.builds, len(list(Root(tmp_path / "into").records()))) == ([], 3)


# Killed, and beside others


def _die_after(files: int, into: Path, places: Sequence[Path]) -> None:
    left = itertools.count(files - 1, -1)

    def arrived(_size: int) -> None:
        if next(left) == 0:
            os._exit(0)

    _merge(into, *places, arrived=arrived)
    os._exit(1)


def test_merge_killed_at_any_moment_is_completed_by_the_next(
    shards: Sequence[Path], whole: Path, tmp_path: Path
) -> None:
    files = len(list_contents(Root(whole)).entries) - 1  # but for the manifest
    for moment in sorted(random.sample(range(1, files + 1), 4)):
        into = tmp_path / str(moment)
        join(start(_die_after, moment, into, shards))
        assert list(Root(into).manifests()) == []
        assert verify_root(Root(into)).findings == []
        done = _merge(into, *shards)
        assert done.came < files
        assert _fingerprint(into) == _fingerprint(whole)


class _Slow(Publisher):
    """Waits a moment before a manifest is published, for others to be quicker."""

    waits, others = event(), event()

    def publish_manifest(self, manifest: Manifest) -> Path:
        self.waits.set()
        self.others.wait(1)
        return super().publish_manifest(manifest)


def test_merges_side_by_side_leave_a_complete_manifest_whoever_is_slow(
    shards: Sequence[Path], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    into = tmp_path / "into"

    def first() -> None:
        monkeypatch.setattr(merge_module, "Publisher", _Slow)
        _merge(into, *shards[:4])

    def second() -> None:
        assert _Slow.waits.wait(60)
        _merge(into, *shards[4:])
        _Slow.others.set()

    join(start(first), start(second))
    assert _fingerprint(into) == _fingerprint(whole)


def test_merge_of_nothing_that_is_there_is_a_wrong_command_line(tmp_path: Path) -> None:
    done = run("merge", tmp_path / "into", tmp_path / "nowhere")
    assert done.code == 2
    assert "is no folder, no file and no URL" in done.err
    assert run("merge", tmp_path / "into").code == 2


def test_parts_that_call_kernels_by_other_labels_are_no_complete_build(shards: Sequence[Path], tmp_path: Path) -> None:
    relabelled = _part(tmp_path / "relabelled", _shard(2), left={f"another {number}": "1/8" for number in range(21)})
    liar = _part(tmp_path / "liar", _shard(2), left={})
    for other in (relabelled, liar):
        for places in ([shards[0], other], [other, shards[0]]):
            with pytest.raises(RefusedError, match="no other lacks"):
                _merge(tmp_path / "into", *places)
    assert not (tmp_path / "into").exists(), "refused before anything is written"

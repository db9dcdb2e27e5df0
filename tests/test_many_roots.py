"""A cache of many roots, as a job has them that is layered: what a lookup opens, keeps and finds out again."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fa4_precompile.cache.key import encode_key
from fa4_precompile.cache.kinds import Kind
from fa4_precompile.cache.listing import list_contents
from fa4_precompile.cache.outcome import MissReason
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.record import Record
from fa4_precompile.cache.store import Root
from fa4_precompile.loader import looks
from fa4_precompile.loader.resolve import Cache
from loadable import find_kernel, find_miss, fitting_toolchain, publish_loadable
from support import blob_file, join, overwrite, record_file, start

_OTHER_KEY = (128,)
_FEW = 256


def _look_up_with_few_descriptors(roots: list[Path], later: Path) -> None:
    inherited = [int(name) for name in os.listdir("/proc/self/fd")]
    before, most = len(inherited), max(inherited) + _FEW
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    cache = Cache(roots)
    cache.prepare()
    cache.keep_folders()
    assert find_kernel(cache).function() == 1
    assert find_miss(cache, _OTHER_KEY).reason is MissReason.ABSENT
    later.rename(later.with_name(fitting_toolchain().id))
    assert find_kernel(cache, _OTHER_KEY).function() == 2
    assert len(os.listdir("/proc/self/fd")) - before < _FEW / 4
    cache.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_thousand_roots_are_searched_with_few_descriptors_though_a_hundred_have_the_kernel_damaged(
    tmp_path: Path,
) -> None:
    """And a kernel that comes into one of them later is found: that it was not there is not remembered."""
    bare, damaged, other, last = (tmp_path / name for name in ("bare", "damaged", "other", "last"))
    record = publish_loadable(last, 1)
    publish_loadable(other, 2, key=encode_key(_OTHER_KEY))
    shutil.copytree(last, damaged)
    overwrite(blob_file(damaged, record), b"other bytes")
    shutil.copytree(last, bare, ignore=shutil.ignore_patterns("records"))
    roots = [tmp_path / str(number) for number in range(999)]
    for number, root in enumerate(roots):
        root.symlink_to(damaged if number < 100 else bare)
    later = other / "records" / "later"
    (other / "records" / record.toolchain).rename(later)
    roots[500].unlink()
    roots[500].symlink_to(other)
    join(start(_look_up_with_few_descriptors, [*roots, last], later))


def _unmount(root: Path, record: Record) -> None:
    root.rename(root.with_name("unmounted"))
    root.mkdir()


def _remove(root: Path, record: Record) -> None:
    shutil.rmtree(root)


def _remove_toolchains_records(root: Path, record: Record) -> None:
    shutil.rmtree(root / "records")


def _remove_what_the_seal_lists(root: Path, record: Record) -> None:
    record_file(root, record).unlink()


def _put_a_file_in_the_way(root: Path, record: Record) -> None:
    shutil.rmtree(record_file(root, record).parent)
    record_file(root, record).parent.write_text("no folder")


@pytest.mark.parametrize(
    ("harm", "is_sealed", "reason", "words"),
    [
        (_unmount, False, MissReason.LAYOUT, "is no kernel cache"),
        (_remove, False, MissReason.LAYOUT, "does not exist"),
        (_remove_toolchains_records, False, MissReason.ABSENT, "has no record of kernel"),
        (_remove_what_the_seal_lists, True, MissReason.DAMAGED, "is missing, though the seal lists it"),
        (_put_a_file_in_the_way, False, MissReason.UNREADABLE, "Not a directory"),
    ],
)
def test_root_that_is_harmed_after_the_start_of_a_job_falls_through_and_says_why(
    tmp_path: Path, harm: Callable[[Path, Record], None], is_sealed: bool, reason: MissReason, words: str
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    record = publish_loadable(first, 1)
    publish_loadable(second, 2)
    if is_sealed:
        Publisher(Root(first)).publish_seal(list_contents(Root(first)).render(), b"")
    both, alone = Cache([first, second]), Cache([first])
    for cache in (both, alone):
        cache.prepare()
        cache.keep_folders()
        find_miss(cache, _OTHER_KEY)
    harm(first, record)
    assert find_kernel(both).function() == 2
    miss = find_miss(alone)
    assert (miss.reason, miss.others) == (reason, ())
    assert words in miss.detail


def test_root_with_kernels_of_another_installation_is_read_once_until_something_comes_into_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, read, look = tmp_path / "root", list[Path](), Root.look

    def look_and_count(self: Root, kind: Kind[Any]) -> list[Any]:
        read.append(self.path)
        return look(self, kind)

    monkeypatch.setattr(Root, "look", look_and_count)
    publish_loadable(root, 1, toolchain=replace(fitting_toolchain(), machine="pdp11"))
    cache = Cache([root])
    for _ in range(2):  # too fresh: what comes in the same tick of the clock would not show
        assert find_miss(cache).reason is MissReason.TOOLCHAIN
    assert len(read) == 2
    monkeypatch.setattr(looks, "_SETTLED_S", -1.0)
    for _ in range(3):
        assert find_miss(cache).reason is MissReason.TOOLCHAIN
    assert len(read) == 3
    publish_loadable(root, 2)
    assert find_kernel(cache).function() == 2


def test_root_that_is_not_trusted_is_looked_at_again_and_used_once_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of a file's mode leaves no trace in its folder."""
    monkeypatch.setattr(looks, "_SETTLED_S", -1.0)
    record = publish_loadable(tmp_path / "root", 1)
    toolchain, cache = tmp_path / "root" / "toolchains" / f"{record.toolchain}.json", Cache([tmp_path / "root"])
    toolchain.chmod(0o666)
    assert find_miss(cache).reason is MissReason.UNTRUSTED
    toolchain.chmod(0o444)
    assert find_kernel(cache).function() == 1

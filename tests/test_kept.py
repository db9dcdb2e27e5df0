"""Folders that stay open between lookups: as strict as if they were opened each time, and never in the way."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fa4_precompile.cache.key import KernelId
from fa4_precompile.cache.outcome import Hit, Miss, MissReason
from fa4_precompile.cache.record import Record
from fa4_precompile.cache.store import Root
from support import blob_file, give_away, publish_synthetic, record_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a cache of two synthetic kernels is."""
    return tmp_path / "cache"


@pytest.fixture
def records(path: Path) -> list[Record]:
    """Its records."""
    return publish_synthetic(path, 2)


@pytest.fixture
def warm(path: Path, records: list[Record]) -> Root:
    """A reader of it that has found its first kernel."""
    root = Root(path)
    root.keep_folders()
    assert isinstance(_find(root, records[0]), Hit)
    return root


def _find(root: Root, record: Record) -> Hit | Miss:
    return root.find(record.toolchain, record.id)


def _open_folders(path: Path) -> list[str]:
    links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    found = [os.readlink(link) for link in links if os.path.lexists(link)]
    return sorted(name.removeprefix(str(path)) for name in found if name.startswith(str(path)))


def test_lookups_keep_five_folders_open_however_many_they_are(path: Path, warm: Root, records: list[Record]) -> None:
    toolchain = records[0].toolchain
    for record in records * 3:
        assert isinstance(_find(warm, record), Hit)
        warm.find(toolchain, KernelId("0" * 64))
    assert _open_folders(path) == ["", "/blobs", "/blobs/sha256", "/records", f"/records/{toolchain}"]


def test_closed_reader_leaves_none_open_and_reads_on(path: Path, warm: Root, records: list[Record]) -> None:
    warm.close()
    assert _open_folders(path) == []
    assert isinstance(_find(warm, records[1]), Hit)
    assert _open_folders(path) == []


def test_kept_folders_are_closed_in_what_the_process_starts(path: Path, warm: Root) -> None:
    assert warm.path == path
    ours = [int(name) for name in os.listdir("/proc/self/fd") if _is_below(path, name)]
    assert len(ours) == 5
    assert not any(map(os.get_inheritable, ours))


@pytest.mark.parametrize("is_moved", [False, True], ids=["deleted", "moved"])
def test_root_that_was_made_anew_is_found(path: Path, warm: Root, records: list[Record], is_moved: bool) -> None:
    shutil.copytree(path, path.with_name("next"), symlinks=True)
    if is_moved:
        path.rename(path.with_name("away"))
        shutil.rmtree(path.with_name("away") / "records")
    else:
        shutil.rmtree(path)
    assert _find(warm, records[1]) == Miss(MissReason.LAYOUT, f"`{path}` does not exist")
    path.with_name("next").rename(path)
    assert isinstance(_find(warm, records[1]), Hit)


@pytest.mark.parametrize("folder", ["records", "blobs"])
def test_folder_that_was_made_anew_is_found(path: Path, warm: Root, records: list[Record], folder: str) -> None:
    (path / folder).rename(path / "old")
    shutil.copytree(path / "old", path / folder)
    shutil.rmtree(path / "old")
    assert isinstance(_find(warm, records[1]), Hit)


def test_kernel_that_is_published_later_is_found(path: Path, warm: Root) -> None:
    third = publish_synthetic(path, 3)[2]
    assert isinstance(_find(warm, third), Hit)


def _open_to_all(folder: Path) -> None:
    folder.chmod(0o777)


def _behind_a_symlink(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")


@pytest.mark.parametrize("place", range(5), ids=["root", "records", "toolchain", "blobs", "sha256"])
def test_folder_that_lost_its_trust_since_it_was_opened_is_refused(
    path: Path, warm: Root, records: list[Record], place: int
) -> None:
    toolchain = records[0].toolchain
    folder = path / ["", "records", f"records/{toolchain}", "blobs", "blobs/sha256"][place]
    _open_to_all(folder)
    found = _find(warm, records[1])
    assert isinstance(found, Miss)
    assert (found.reason, found.path) == (MissReason.UNTRUSTED, str(folder))
    folder.chmod(0o755)
    assert isinstance(_find(warm, records[1]), Hit)


@pytest.mark.parametrize("place", [record_file, blob_file])
@pytest.mark.parametrize("harm", [_open_to_all, _behind_a_symlink])
def test_folder_below_the_kept_ones_is_checked_each_time(
    path: Path,
    warm: Root,
    records: list[Record],
    place: Callable[[Path, Record], Path],
    harm: Callable[[Path], None],
) -> None:
    harm(place(path, records[0]).parent)
    found = _find(warm, records[0])
    assert isinstance(found, Miss)
    assert (found.reason, found.path) == (MissReason.UNTRUSTED, str(place(path, records[0]).parent))


def test_folder_that_changed_hands_since_it_was_opened_is_refused(
    path: Path, warm: Root, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", give_away(path))
    found = _find(warm, records[1])
    assert isinstance(found, Miss)
    assert found.reason is MissReason.UNTRUSTED


def test_kept_descriptors_that_another_part_of_the_process_closed_are_opened_anew(
    path: Path, warm: Root, records: list[Record], tmp_path: Path
) -> None:
    """And what has come to their numbers meanwhile is neither read nor closed."""
    ours = [int(name) for name in os.listdir("/proc/self/fd") if _is_below(path, name)]
    assert len(ours) == len(_open_folders(path)) == 5
    for number in ours:
        os.close(number)
    others = [os.open(tmp_path, os.O_RDONLY) for _ in ours]
    assert sorted(others) == sorted(ours)
    assert isinstance(_find(warm, records[1]), Hit)
    warm.close()
    try:
        assert {os.readlink(f"/proc/self/fd/{number}") for number in others} == {str(tmp_path)}
    finally:
        for number in others:
            os.close(number)


def _is_below(path: Path, name: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{name}") and os.readlink(f"/proc/self/fd/{name}").startswith(str(path))


def test_child_that_was_forked_finds_kernels_and_leaves_the_parents_folders_open(
    warm: Root, records: list[Record]
) -> None:
    child = os.fork()
    if child == 0:
        found = isinstance(_find(warm, records[1]), Hit)
        warm.close()
        os._exit(0 if found else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert isinstance(_find(warm, records[1]), Hit)


def _look_up_in_threads(root: Root, records: list[Record], meanwhile: Callable[[], None], rounds: int) -> list[Miss]:
    """Look kernels up in three threads while something else is done so often; return what was not found."""
    misses: list[Miss] = []
    ended = threading.Event()

    def look_up() -> None:
        while not ended.is_set():
            for record in records:
                if isinstance(found := _find(root, record), Miss):
                    misses.append(found)

    threads = [threading.Thread(target=look_up) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(rounds):
            meanwhile()
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    return misses


@pytest.mark.chance
def test_lookups_beside_a_root_that_is_replaced_find_all_of_it(
    tmp_path: Path, path: Path, records: list[Record], effort: int
) -> None:
    link, versions = tmp_path / "link", [path]
    link.symlink_to(path)
    root = Root(link)
    root.keep_folders()

    def replace_root() -> None:
        versions.append(tmp_path / f"version-{len(versions)}")
        shutil.copytree(path, versions[-1])
        (tmp_path / "next").symlink_to(versions[-1])
        os.replace(tmp_path / "next", link)
        if len(versions) > 3:  # that before the last: who opens all of it by the link is long through
            shutil.rmtree(versions[-3])

    assert _look_up_in_threads(root, records, replace_root, 30 * effort) == []


@pytest.mark.chance
def test_lookups_beside_an_end_of_keeping_find_all_and_leave_nothing_open(
    path: Path, records: list[Record], effort: int
) -> None:
    root = Root(path)

    def keep_and_close() -> None:
        root.keep_folders()
        time.sleep(0.002)
        root.close()

    assert _look_up_in_threads(root, records, keep_and_close, 100 * effort) == []
    root.close()
    assert _open_folders(path) == []

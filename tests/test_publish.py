"""Publishing into a cache directory: disks that fail, builders that are killed and that work at once."""

from __future__ import annotations

import errno
import os

# Publishing and reading
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from fa4_precompile.cache.deleter import sweep_temporaries
from fa4_precompile.cache.outcome import Miss, MissReason
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.verify import verify_root
from fa4_precompile.errors import MachineError
from support import (
    SYNTHETIC_BLOB,
    always,
    barrier,
    blob_file,
    event,
    fail_call,
    find_whole,
    join,
    make_manifest,
    make_record,
    make_target,
    make_toolchain,
    overwrite,
    publish_synthetic,
    record_file,
    require_miss,
    start,
    synthetic_blob,
    temporaries,
)

# What the operating system refuses


def _writes(_path: object, flags: int = 0, *_rest: object) -> bool:
    return bool(flags & os.O_CREAT)


_REFUSALS = [
    ("open", errno.EROFS, _writes),
    ("open", errno.EACCES, _writes),
    ("open", errno.ENOSPC, _writes),
    ("open", errno.EDQUOT, _writes),
    ("fsync", errno.ENOSPC, always),
    ("fsync", errno.EDQUOT, always),
    ("fsync", errno.EIO, always),
    ("fchmod", errno.EPERM, always),
    ("rename", errno.ENOSPC, always),
    ("rename", errno.EDQUOT, always),
]


@pytest.mark.parametrize(("function", "number", "when"), _REFUSALS)
def test_publish_refused_by_the_system_is_a_machine_error_and_leaves_no_trace(
    root: Root, monkeypatch: pytest.MonkeyPatch, function: str, number: int, when: Callable[..., bool]
) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        fail_call(patch, function, number, when)
        with pytest.raises(MachineError) as caught:
            Publisher(root).publish(make_record(), SYNTHETIC_BLOB)
    assert caught.value.exit_code == 3
    assert os.strerror(number) in str(caught.value)
    assert str(root.path) in str(caught.value)
    assert caught.value.hint
    assert temporaries(root.path) == []
    assert not blob_file(root.path, make_record()).exists()
    assert len(os.listdir("/proc/self/fd")) == descriptors
    Publisher(root).publish(make_record(), SYNTHETIC_BLOB)
    assert not isinstance(find_whole(root, make_record()), Miss)


@pytest.mark.parametrize(("function", "number", "when"), _REFUSALS)
def test_create_refused_by_the_system_is_a_machine_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, number: int, when: Callable[..., bool]
) -> None:
    fail_call(monkeypatch, function, number, when)
    with pytest.raises(MachineError):
        Publisher(Root(tmp_path / "cache")).create()
    assert temporaries(tmp_path) == []


@pytest.mark.parametrize(("function", "number", "when"), _REFUSALS[:7])
def test_require_writable_refused_by_the_system_is_a_machine_error(
    root: Root, monkeypatch: pytest.MonkeyPatch, function: str, number: int, when: Callable[..., bool]
) -> None:
    fail_call(monkeypatch, function, number, when)
    with pytest.raises(MachineError):
        Publisher(root).require_writable(make_toolchain().id)
    assert temporaries(root.path) == []


def test_require_writable_leaves_nothing_behind(root: Root) -> None:
    names = set(os.listdir(root.path))
    Publisher(root).require_writable(make_toolchain().id)
    assert set(os.listdir(root.path)) == names


def test_require_writable_name_that_the_filesystem_does_not_take_is_a_machine_error(root: Root) -> None:
    target = make_target(name="a" * 240)
    name = root.manifest_path(make_manifest(target=target)).name
    with pytest.raises(MachineError, match="File name too long") as caught:
        Publisher(root).require_writable(make_toolchain().id, name)
    assert "shorter name" in caught.value.hint
    Publisher(root).require_writable(make_toolchain().id, name[:255])
    assert temporaries(root.path) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_sync_refused_by_the_disk_is_a_machine_error(root: Root, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    publisher = Publisher(root)
    publisher.publish(make_record(), SYNTHETIC_BLOB)
    fail_call(monkeypatch, "fsync", number, always)
    with pytest.raises(MachineError):
        publisher.sync()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE])
def test_sync_folder_that_can_not_be_opened_is_a_machine_error(
    root: Root, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    publisher = Publisher(root)
    publisher.publish(make_record(), SYNTHETIC_BLOB)
    fail_call(monkeypatch, "open", number, always)
    with pytest.raises(MachineError):
        publisher.sync()


def test_sync_filesystem_that_can_not_sync_folders_is_no_error(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = Publisher(root)
    publisher.publish(make_record(), SYNTHETIC_BLOB)
    fail_call(monkeypatch, "fsync", errno.EINVAL, always)
    publisher.sync()


def test_sync_syncs_each_folder_that_was_published_into(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = Publisher(root)
    record = make_record()
    publisher.sync()
    publisher.publish(record, SYNTHETIC_BLOB)
    synced = set()
    real = os.fsync

    def watch(descriptor: int) -> None:
        synced.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    publisher.sync()
    blob, written = blob_file(root.path, record).parent, record_file(root.path, record).parent
    made = {blob, *blob.parents, written, *written.parents} & {root.path, *root.path.rglob("*")}
    assert {Path(path) for path in synced} == made


def test_publish_every_byte_is_synced_before_the_name_appears(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    record = make_record()
    events: list[tuple[str, int]] = []
    fsync, rename = os.fsync, os.rename

    def watch_fsync(descriptor: int) -> None:
        fsync(descriptor)
        events.append(("synced", os.fstat(descriptor).st_ino))

    def watch_rename(source: Path, target: Path) -> None:
        events.append(("named", source.stat().st_ino))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", watch_fsync)
    monkeypatch.setattr(os, "rename", watch_rename)
    Publisher(root).publish(record, SYNTHETIC_BLOB)
    inodes = [path(root.path, record).stat().st_ino for path in (blob_file, record_file)]
    assert events == [("synced", inodes[0]), ("named", inodes[0]), ("synced", inodes[1]), ("named", inodes[1])]


def test_publish_file_that_stops_growing_half_way_leaves_no_partial_file(tmp_path: Path) -> None:
    root = Root(tmp_path / "cache")
    Publisher(root).create()
    blob = os.urandom(100_000)
    record = make_record(blob)

    def publish() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, 65_536))
        with pytest.raises(MachineError):
            Publisher(root).publish(record, blob)

    join(start(publish))
    assert temporaries(root.path) == []
    assert require_miss(root, record).reason is MissReason.ABSENT
    assert not blob_file(root.path, record).exists()


def test_publish_interrupted_while_writing_leaves_no_partial_file(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_descriptor: int) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Publisher(root).publish(make_record(), SYNTHETIC_BLOB)
    assert temporaries(root.path) == []


def test_publish_file_in_place_of_a_folder_is_a_machine_error(root: Root) -> None:
    (root.path / "blobs").write_text("no folder")
    with pytest.raises(MachineError):
        Publisher(root).publish(make_record(), SYNTHETIC_BLOB)


# Crashes, and builders that work at once


@pytest.mark.parametrize("renames", [0, 1])
def test_publish_killed_at_any_step_leaves_a_valid_cache(tmp_path: Path, renames: int) -> None:
    root = Root(tmp_path / "cache")
    Publisher(root).create()
    record = make_record()

    def die() -> None:
        real, left = os.rename, [renames]

        def rename(source: Path, target: Path) -> None:
            if not left[0]:
                os._exit(0)
            left[0] -= 1
            real(source, target)

        os.rename = rename  # type: ignore[assignment]
        Publisher(root).publish(record, SYNTHETIC_BLOB)
        os._exit(1)

    join(start(die))
    assert blob_file(root.path, record).exists() == bool(renames)
    assert require_miss(root, record).reason is MissReason.ABSENT
    assert verify_root(root).findings == []
    Publisher(root).publish(record, SYNTHETIC_BLOB)
    assert not isinstance(find_whole(root, record), Miss)


@pytest.mark.chance
def test_publish_by_two_builders_at_once_readers_see_the_kernel_whole_or_not_at_all(tmp_path: Path) -> None:
    root = Root(tmp_path / "cache")
    Publisher(root).create()
    blob = os.urandom(300_000)
    record = make_record(blob)
    together, finished = barrier(3), event()

    def build() -> None:
        mine = Publisher(Root(root.path))
        together.wait(120)
        for _ in range(100):
            mine.publish(record, blob)

    def read() -> None:
        together.wait(120)
        seen = False
        while not finished.is_set():
            found = find_whole(root, record)
            if not isinstance(found, Miss):
                assert found == (record, blob)
                seen = True
            else:
                assert found.reason is MissReason.ABSENT, found
                assert not seen, "a published kernel has vanished"
        assert seen

    builders = [start(build) for _ in range(2)]
    reader = start(read)
    join(*builders)
    finished.set()
    join(reader)
    assert temporaries(root.path) == []
    assert find_whole(root, record) == (record, blob)


@pytest.mark.chance
def test_publish_by_builders_of_different_measurements_keeps_one_whole_record(tmp_path: Path) -> None:
    root = Root(tmp_path / "cache")
    Publisher(root).create()
    Publisher(root).publish_toolchain(make_toolchain())
    builders = 3
    together = barrier(builders)
    records = [make_record(synthetic_blob(number), cubin_bytes=number) for number in range(builders)]
    assert len({record.id for record in records}) == 1

    def build(number: int) -> None:
        together.wait(120)
        for _ in range(30):
            Publisher(root).publish(records[number], synthetic_blob(number))

    join(*(start(build, number) for number in range(builders)))
    assert find_whole(root, records[0]) in [(record, synthetic_blob(n)) for n, record in enumerate(records)]
    assert verify_root(root).findings == []


# What killed builders leave


def test_sweep_temporaries_deletes_only_old_ones(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    (record,) = publish_synthetic(path)
    old, young = path / "blobs" / ".tmp-old", path / ".tmp-young"
    for file in (old, young):
        file.write_bytes(b"half")
    before = time.time() - 86_400
    os.utime(old, (before, before))
    os.utime(record_file(path, record), (before, before))
    assert sweep_temporaries(Root(path)) == 1
    assert not old.exists()
    assert young.exists()
    assert not isinstance(find_whole(Root(path), record), Miss)


def test_sweep_temporaries_does_not_follow_symlinks(tmp_path: Path) -> None:
    publish_synthetic(tmp_path / "cache")
    precious = tmp_path / "elsewhere" / ".tmp-precious"
    precious.parent.mkdir()
    precious.write_bytes(b"somebody else's")
    os.utime(precious, (1, 1))
    (tmp_path / "cache" / "link").symlink_to(precious.parent)
    assert sweep_temporaries(Root(tmp_path / "cache")) == 0
    assert precious.exists()


def test_publish_two_kernels_of_the_same_bytes_share_one_blob(root: Root) -> None:
    one, other = make_record(slot="fwd"), make_record(slot="bwd")
    Publisher(root).publish(one, SYNTHETIC_BLOB)
    Publisher(root).publish(other, SYNTHETIC_BLOB)
    assert blob_file(root.path, one) == blob_file(root.path, other)
    assert not isinstance(find_whole(root, one), Miss)
    assert not isinstance(find_whole(root, other), Miss)


def test_publish_bytes_that_are_not_the_records_are_refused(root: Root) -> None:
    with pytest.raises(ValueError, match="another blob"):
        Publisher(root).publish(make_record(), SYNTHETIC_BLOB + b"x")
    assert require_miss(root, make_record()).reason is MissReason.ABSENT


def test_publish_damaged_kernel_again_heals_it(root: Root) -> None:
    record = make_record()
    Publisher(root).publish(record, SYNTHETIC_BLOB)
    overwrite(blob_file(root.path, record), b"damage")
    overwrite(record_file(root.path, record), b"damage")
    Publisher(root).publish(record, SYNTHETIC_BLOB)
    assert find_whole(root, record) == (record, SYNTHETIC_BLOB)


def test_manifest_published_again_replaces_the_old_one(root: Root) -> None:
    failed = make_manifest(failed={"f" * 64: "ran out of memory"})
    Publisher(root).publish_manifest(failed)
    assert list(root.manifests()) == [failed]
    Publisher(root).publish_manifest(make_manifest())
    assert list(root.manifests()) == [make_manifest()]

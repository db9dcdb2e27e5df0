"""The cache directory: publishing, reading, and what goes wrong with disks, processes and other people's files."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fa4_precompile.cache.codec import render_file
from fa4_precompile.cache.key import BlobDigest, KernelId
from fa4_precompile.cache.outcome import Finding, Hit, Miss, MissReason
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.record import Record
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.verify import verify_root
from fa4_precompile.errors import CacheError, Fa4PrecompileError, MachineError, RecordError
from support import (
    SYNTHETIC_BLOB,
    barrier,
    blob_file,
    event,
    join,
    make_manifest,
    make_record,
    make_target,
    make_toolchain,
    numbered_record,
    overwrite,
    publish_synthetic,
    record_file,
    snapshot,
    start,
    synthetic_blob,
    temporaries,
)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """An empty cache."""
    made = Root(tmp_path / "cache")
    Publisher(made).create()
    return made


@pytest.fixture(params=[0o002, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    """The umask of a builder."""
    before = os.umask(request.param)
    yield
    os.umask(before)


def _find(root: Root, record: Record) -> tuple[Record, bytes] | Miss:
    """Return all of a kernel, as a reader that has found nothing out yet."""
    fresh = Root(root.path)
    whole = fresh.find_record(record.toolchain, record.id)
    if isinstance(whole, Miss):
        return whole
    found = fresh.find(record.toolchain, record.id)
    assert isinstance(found, Hit)
    return whole, found.blob


def _miss(root: Root, record: Record) -> Miss:
    found = _find(root, record)
    assert isinstance(found, Miss)
    return found


# Publishing and reading


def test_find_published_kernel_returns_its_record_and_bytes(root: Root) -> None:
    record = make_record()
    Publisher(root).publish(record, SYNTHETIC_BLOB)
    assert _find(root, record) == (record, SYNTHETIC_BLOB)


@pytest.mark.parametrize("size", [0, 1, 4096, 3_000_000])
def test_find_blob_of_any_size_comes_back_whole(root: Root, size: int) -> None:
    blob = os.urandom(size)
    record = make_record(blob)
    Publisher(root).publish(record, blob)
    assert _find(root, record) == (record, blob)


def test_find_unknown_kernel_is_absent(root: Root) -> None:
    assert _miss(root, make_record()).reason is MissReason.ABSENT


def test_find_root_that_does_not_exist_is_said_and_is_not_made(tmp_path: Path) -> None:
    miss = _miss(Root(tmp_path / "nowhere"), make_record())
    assert miss.reason is MissReason.LAYOUT
    assert "does not exist" in miss.detail
    assert list(tmp_path.iterdir()) == []


def test_find_other_toolchain_is_absent(root: Root) -> None:
    record = make_record()
    Publisher(root).publish(record, SYNTHETIC_BLOB)
    other = make_record(toolchain=make_toolchain(tvm_ffi="1.0-synthetic").id)
    assert _miss(root, other).reason is MissReason.ABSENT


def test_publish_two_kernels_of_the_same_bytes_share_one_blob(root: Root) -> None:
    one, other = make_record(slot="fwd"), make_record(slot="bwd")
    Publisher(root).publish(one, SYNTHETIC_BLOB)
    Publisher(root).publish(other, SYNTHETIC_BLOB)
    assert blob_file(root.path, one) == blob_file(root.path, other)
    assert not isinstance(_find(root, one), Miss)
    assert not isinstance(_find(root, other), Miss)


def test_publish_bytes_that_are_not_the_records_are_refused(root: Root) -> None:
    with pytest.raises(ValueError, match="another blob"):
        Publisher(root).publish(make_record(), SYNTHETIC_BLOB + b"x")
    assert _miss(root, make_record()).reason is MissReason.ABSENT


def test_publish_damaged_kernel_again_heals_it(root: Root) -> None:
    record = make_record()
    Publisher(root).publish(record, SYNTHETIC_BLOB)
    overwrite(blob_file(root.path, record), b"damage")
    overwrite(record_file(root.path, record), b"damage")
    Publisher(root).publish(record, SYNTHETIC_BLOB)
    assert _find(root, record) == (record, SYNTHETIC_BLOB)


def test_lists_return_what_was_published(tmp_path: Path) -> None:
    records = publish_synthetic(tmp_path / "cache", 3)
    root = Root(tmp_path / "cache")
    assert sorted(root.records(), key=str) == sorted(records, key=str)
    assert list(root.toolchains()) == [make_toolchain()]
    assert list(root.manifests()) == [make_manifest(*records)]
    assert root.manifest(make_toolchain().id, "d" * 64, make_target()) == make_manifest(*records)
    assert root.manifest(make_toolchain().id, "e" * 64, make_target()) is None


def test_manifest_published_again_replaces_the_old_one(root: Root) -> None:
    failed = make_manifest(failed={"f" * 64: "ran out of memory"})
    Publisher(root).publish_manifest(failed)
    assert list(root.manifests()) == [failed]
    Publisher(root).publish_manifest(make_manifest())
    assert list(root.manifests()) == [make_manifest()]


# The layout


def test_layout_is_as_documented(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    (record,) = publish_synthetic(path)
    assert (path / "CACHEDIR.TAG").read_bytes().startswith(b"Signature: 8a477f597d28d172789f06886806bc55\n")
    assert b"fa4-precompile" in (path / "README").read_bytes()
    assert json.loads((path / "format.json").read_bytes()) == {"layout": 1}
    assert (path / "toolchains" / f"{make_toolchain().id}.json").is_file()
    assert json.loads(record_file(path, record).read_bytes())["kernel"] == record.id
    blob = blob_file(path, record)
    assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name == record.blob
    assert [file.suffix for file in (path / "manifests").rglob("*") if file.is_file()] == [".json"]
    assert temporaries(path) == []


@pytest.mark.usefixtures("umask")
def test_layout_modes_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "parent" / "cache"
    publish_synthetic(path)
    files = [file for file in path.rglob("*") if file.is_file()]
    folders = [path, *(folder for folder in path.rglob("*") if folder.is_dir())]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o444}
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o755}
    assert verify_root(Root(path)).findings == []


def test_layout_cache_is_found_wherever_it_is_moved_or_copied(tmp_path: Path) -> None:
    (record,) = publish_synthetic(tmp_path / "made")
    subprocess.run(["cp", "-r", tmp_path / "made", tmp_path / "copied"], check=True)
    subprocess.run(["mv", tmp_path / "made", tmp_path / "moved"], check=True)
    for name in ("copied", "moved"):
        assert _find(Root(tmp_path / name), record) == (record, synthetic_blob(0))
    assert verify_root(Root(tmp_path / "moved")).findings == []
    assert str(tmp_path).encode() not in b"".join(
        file.read_bytes() for file in (tmp_path / "moved").rglob("*") if file.is_file()
    )


def test_layout_unknown_files_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    (record,) = publish_synthetic(path)
    for folder in (path, *(folder for folder in path.rglob("*") if folder.is_dir())):
        (folder / ".hidden.json").write_text("{")
        (folder / "notes.txt").write_text("somebody's notes")
    (path / "later").mkdir()
    root = Root(path)
    Publisher(root).create()
    assert list(root.records()) == [record]
    assert not isinstance(_find(root, record), Miss)
    assert verify_root(root).findings == []


@pytest.mark.parametrize("text", ['{"layout": 2}', "{}", "[]", "", "no JSON", '{"layout": "1"}', "[" * 100_000])
def test_layout_that_is_unknown_is_refused_by_the_commands(tmp_path: Path, text: str) -> None:
    publish_synthetic(tmp_path / "cache")
    overwrite(tmp_path / "cache" / "format.json", text.encode())
    for use in (Root(tmp_path / "cache").require_layout, Publisher(Root(tmp_path / "cache")).create):
        with pytest.raises(CacheError, match="layout 1"):
            use()


def test_layout_that_is_unknown_is_a_miss_with_a_reason(tmp_path: Path) -> None:
    (record,) = publish_synthetic(tmp_path / "cache")
    overwrite(tmp_path / "cache" / "format.json", b'{"layout": 2}\n')
    assert "layout" in _miss(Root(tmp_path / "cache"), record).detail


def test_require_layout_folder_that_is_no_cache_says_so(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="is no kernel cache"):
        Root(tmp_path).require_layout()
    with pytest.raises(CacheError, match="does not exist"):
        Root(tmp_path / "nowhere").require_layout()


def test_create_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    before = snapshot(tmp_path)
    with pytest.raises(CacheError, match="holds files"):
        Publisher(Root(tmp_path)).create()
    assert snapshot(tmp_path) == before


def test_create_cache_that_is_there_changes_nothing(tmp_path: Path) -> None:
    publish_synthetic(tmp_path / "cache")
    before = snapshot(tmp_path)
    Publisher(Root(tmp_path / "cache")).create()
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("left", [[".tmp-0123456789abcdef"], ["CACHEDIR.TAG"], ["CACHEDIR.TAG", "README"]], ids=str)
def test_create_folder_that_a_killed_builder_began_is_finished(tmp_path: Path, left: list[str]) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    for name in left:
        (folder / name).write_bytes(b"")
    Publisher(Root(folder)).create()
    Root(folder).require_layout()


def test_create_by_many_builders_at_once_works_for_all(tmp_path: Path) -> None:
    rounds, builders = 25, 4
    together = barrier(builders)

    def create() -> None:
        errors = []
        for number in range(rounds):
            together.wait(10)
            try:
                Publisher(Root(tmp_path / f"cache-{number}")).create()
            except Fa4PrecompileError as error:
                errors.append(error)
        assert errors == []

    join(*(start(create) for _ in range(builders)))


# Damage: a miss with a reason, never an exception, never wrong bytes


def _truncate(path: Path) -> None:
    overwrite(path, path.read_bytes()[:-1])


def _extend(path: Path) -> None:
    overwrite(path, path.read_bytes() + b"\0")


def _empty(path: Path) -> None:
    overwrite(path, b"")


def _flip(path: Path) -> None:
    data = path.read_bytes()
    overwrite(path, bytes([data[0] ^ 1]) + data[1:])


def _zero(path: Path) -> None:
    overwrite(path, bytes(len(path.read_bytes())))


@pytest.mark.parametrize("which", [blob_file, record_file])
@pytest.mark.parametrize("damage", [_truncate, _extend, _empty, _flip, _zero])
def test_find_damaged_file_is_a_miss_that_names_it(
    root: Root, which: Callable[[Path, Record], Path], damage: Callable[[Path], None]
) -> None:
    record = make_record()
    Publisher(root).publish(record, SYNTHETIC_BLOB)
    damage(which(root.path, record))
    miss = _miss(root, record)
    assert miss.reason is MissReason.DAMAGED
    assert which(root.path, record).name in miss.detail


def test_find_missing_blob_is_damage_not_absence(root: Root) -> None:
    record = make_record()
    Publisher(root).publish(record, SYNTHETIC_BLOB)
    blob_file(root.path, record).unlink()
    miss = _miss(root, record)
    assert miss.reason is MissReason.DAMAGED
    assert "is missing" in miss.detail


def test_find_swapped_blobs_are_both_misses(root: Root) -> None:
    records = [numbered_record(number) for number in range(2)]
    for number, record in enumerate(records):
        Publisher(root).publish(record, synthetic_blob(number))
    one, other = (blob_file(root.path, record) for record in records)
    one.rename(root.path / "aside")
    other.rename(one)
    (root.path / "aside").rename(other)
    assert [_miss(root, record).reason for record in records] == [MissReason.DAMAGED] * 2


def test_find_record_under_another_kernels_name_is_a_miss(root: Root) -> None:
    one, other = numbered_record(0), numbered_record(1)
    Publisher(root).publish(one, synthetic_blob(0))
    path = record_file(root.path, other)
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(record_file(root.path, one), path)
    miss = _miss(root, other)
    assert miss.reason is MissReason.DAMAGED
    assert one.id in miss.detail
    assert any(isinstance(item, Finding) and other.id in item.path for item in root.records())


def test_find_record_under_another_toolchain_is_a_miss(root: Root) -> None:
    record = make_record()
    Publisher(root).publish(record, SYNTHETIC_BLOB)
    (root.path / "records" / record.toolchain).rename(root.path / "records" / "another")
    found = root.find("another", record.id)
    assert isinstance(found, Miss)
    assert found.reason is MissReason.DAMAGED


def test_manifest_under_another_specs_name_vouches_for_nothing(root: Root) -> None:
    path = Publisher(root).publish_manifest(make_manifest())
    other = root.manifest_path(make_manifest(spec_digest="e" * 64))
    shutil.copy(path, other)
    with pytest.raises(RecordError, match="belongs elsewhere"):
        root.manifest(make_toolchain().id, "e" * 64, make_target())
    assert any(isinstance(item, Finding) for item in root.manifests())


def test_manifest_that_is_damaged_is_a_finding(root: Root) -> None:
    path = Publisher(root).publish_manifest(make_manifest())
    _truncate(path)
    with pytest.raises(RecordError, match="is damaged"):
        root.manifest(make_toolchain().id, "d" * 64, make_target())
    (finding,) = root.manifests()
    assert isinstance(finding, Finding)
    assert finding.path == path.relative_to(root.path).as_posix()


def test_find_file_in_place_of_a_folder_is_a_miss(root: Root) -> None:
    record = make_record()
    (root.path / "records").write_text("no folder")
    assert _miss(root, record).reason is MissReason.UNREADABLE
    (root.path / "cache.txt").write_text("no cache")
    miss = _miss(Root(root.path / "cache.txt"), record)
    assert miss.reason is MissReason.LAYOUT
    assert "Not a directory" in miss.detail


def _plant(root: Root, data: bytes) -> Record:
    record = make_record()
    Publisher(root).publish(record, SYNTHETIC_BLOB)
    overwrite(record_file(root.path, record), data)
    return record


@pytest.mark.parametrize(
    "data",
    [b"[" * 100_000, b'{"a": ' * 100_000, b"\xff\xfe", b"1" * 5000, b"null", b'"\\ud800"'],
    ids=["deep-list", "deep-object", "no-utf8", "long-number", "null", "surrogate"],
)
def test_find_record_of_hostile_json_is_a_miss(root: Root, data: bytes) -> None:
    assert _miss(root, _plant(root, data)).reason is MissReason.DAMAGED


@pytest.mark.parametrize("number", [b"9e512", b"NaN", b"-Infinity"])
def test_find_record_with_a_number_that_is_no_number_is_a_miss(root: Root, number: bytes) -> None:
    data = make_record().render_file()
    assert b"9.512" in data
    assert _miss(root, _plant(root, data.replace(b"9.512", number))).reason is MissReason.DAMAGED


@pytest.mark.parametrize("blob", ["", "..", "../../../../etc/passwd", "a\0b", "x" * 300, "\ud800"], ids=ascii)
def test_find_sealed_record_that_names_an_impossible_blob_is_a_miss(root: Root, blob: str) -> None:
    assert isinstance(_find(root, _plant(root, replace(make_record(), blob=BlobDigest(blob)).render_file())), Miss)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_find_any_flipped_byte_of_a_blob_is_a_miss(root: Root, data: st.DataObject) -> None:
    record = make_record()
    Publisher(root).publish(record, SYNTHETIC_BLOB)
    position = data.draw(st.integers(0, len(SYNTHETIC_BLOB) - 1))
    mask = data.draw(st.integers(1, 255))
    damaged = bytearray(SYNTHETIC_BLOB)
    damaged[position] ^= mask
    overwrite(blob_file(root.path, record), bytes(damaged))
    assert _miss(root, record).reason is MissReason.DAMAGED


# Readers write nothing

_READER = """
import os, sys
from pathlib import Path
from fa4_precompile.cache.key import KernelId
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.outcome import Hit
from fa4_precompile.cache.verify import verify_root

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.chown", "os.utime", "os.link",
           "os.symlink", "os.truncate", "fcntl.flock", "fcntl.lockf")

def audit(event, arguments):
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES or event in CHANGES:
        print("WROTE", event, arguments, flush=True)
        os._exit(9)

toolchain, kernel = sys.argv[2:]
sys.addaudithook(audit)
root = Root(Path(sys.argv[1]))
assert isinstance(root.find(toolchain, KernelId(kernel)), Hit)
root.find(toolchain, KernelId("0" * 64))
root.require_layout()
print(verify_root(root).records)
"""


def test_reader_opens_nothing_for_writing_and_leaves_the_tree_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    record, *_ = publish_synthetic(path, 3)
    for folder in (path, *(folder for folder in path.rglob("*") if folder.is_dir())):
        folder.chmod(0o555)
    before = snapshot(path)
    done = subprocess.run(
        [sys.executable, "-c", _READER, path, record.toolchain, record.id],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")
    assert snapshot(path) == before


def test_reader_leaves_no_descriptor_open(root: Root) -> None:
    record = make_record()
    Publisher(root).publish(record, SYNTHETIC_BLOB)
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        root.find(record.toolchain, record.id)
        root.find(record.toolchain, KernelId("0" * 64))
    _truncate(blob_file(root.path, record))
    root.find(record.toolchain, record.id)
    assert len(os.listdir("/proc/self/fd")) == len(before)


# What the operating system refuses


def _fail(monkeypatch: pytest.MonkeyPatch, function: str, number: int, when: Callable[..., bool]) -> None:
    real = getattr(os, function)

    def refuse(*arguments: Any, **options: Any) -> Any:
        if when(*arguments):
            raise OSError(number, os.strerror(number))
        return real(*arguments, **options)

    monkeypatch.setattr(os, function, refuse)


def _writes(_path: object, flags: int = 0, *_rest: object) -> bool:
    return bool(flags & os.O_CREAT)


def _always(*_arguments: object) -> bool:
    return True


_REFUSALS = [
    ("open", errno.EROFS, _writes),
    ("open", errno.EACCES, _writes),
    ("open", errno.ENOSPC, _writes),
    ("open", errno.EDQUOT, _writes),
    ("fsync", errno.ENOSPC, _always),
    ("fsync", errno.EDQUOT, _always),
    ("fsync", errno.EIO, _always),
    ("fchmod", errno.EPERM, _always),
    ("rename", errno.ENOSPC, _always),
    ("rename", errno.EDQUOT, _always),
]


@pytest.mark.parametrize(("function", "number", "when"), _REFUSALS)
def test_publish_refused_by_the_system_is_a_machine_error_and_leaves_no_trace(
    root: Root, monkeypatch: pytest.MonkeyPatch, function: str, number: int, when: Callable[..., bool]
) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        _fail(patch, function, number, when)
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
    assert not isinstance(_find(root, make_record()), Miss)


@pytest.mark.parametrize(("function", "number", "when"), _REFUSALS)
def test_create_refused_by_the_system_is_a_machine_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, number: int, when: Callable[..., bool]
) -> None:
    _fail(monkeypatch, function, number, when)
    with pytest.raises(MachineError):
        Publisher(Root(tmp_path / "cache")).create()
    assert temporaries(tmp_path) == []


@pytest.mark.parametrize(("function", "number", "when"), _REFUSALS[:7])
def test_require_writable_refused_by_the_system_is_a_machine_error(
    root: Root, monkeypatch: pytest.MonkeyPatch, function: str, number: int, when: Callable[..., bool]
) -> None:
    _fail(monkeypatch, function, number, when)
    with pytest.raises(MachineError):
        Publisher(root).require_writable()
    assert temporaries(root.path) == []


def test_require_writable_leaves_nothing_behind(root: Root) -> None:
    names = set(os.listdir(root.path))
    Publisher(root).require_writable()
    assert set(os.listdir(root.path)) == names


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_sync_refused_by_the_disk_is_a_machine_error(root: Root, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    publisher = Publisher(root)
    publisher.publish(make_record(), SYNTHETIC_BLOB)
    _fail(monkeypatch, "fsync", number, _always)
    with pytest.raises(MachineError):
        publisher.sync()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE])
def test_sync_folder_that_can_not_be_opened_is_a_machine_error(
    root: Root, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    publisher = Publisher(root)
    publisher.publish(make_record(), SYNTHETIC_BLOB)
    _fail(monkeypatch, "open", number, _always)
    with pytest.raises(MachineError):
        publisher.sync()


def test_sync_filesystem_that_can_not_sync_folders_is_no_error(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = Publisher(root)
    publisher.publish(make_record(), SYNTHETIC_BLOB)
    _fail(monkeypatch, "fsync", errno.EINVAL, _always)
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
    assert _miss(root, record).reason is MissReason.ABSENT
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


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE])
@pytest.mark.parametrize("is_first", [True, False], ids=["first", "later"])
def test_find_refused_by_the_system_is_a_miss(
    root: Root, monkeypatch: pytest.MonkeyPatch, number: int, is_first: bool
) -> None:
    record = make_record()
    Publisher(root).publish(record, SYNTHETIC_BLOB)
    reader = Root(root.path)
    if not is_first:
        assert isinstance(reader.find(record.toolchain, record.id), Hit)
    _fail(monkeypatch, "open", number, _always)
    found = reader.find(record.toolchain, record.id)
    assert isinstance(found, Miss)
    assert found.reason is MissReason.UNREADABLE
    assert os.strerror(number) in found.detail


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
    assert _miss(root, record).reason is MissReason.ABSENT
    assert verify_root(root).findings == []
    Publisher(root).publish(record, SYNTHETIC_BLOB)
    assert not isinstance(_find(root, record), Miss)


def test_publish_by_two_builders_at_once_readers_see_the_kernel_whole_or_not_at_all(tmp_path: Path) -> None:
    root = Root(tmp_path / "cache")
    Publisher(root).create()
    blob = os.urandom(300_000)
    record = make_record(blob)
    together, finished = barrier(3), event()

    def build() -> None:
        mine = Publisher(Root(root.path))
        together.wait(10)
        for _ in range(100):
            mine.publish(record, blob)

    def read() -> None:
        together.wait(10)
        seen = False
        while not finished.is_set():
            found = _find(root, record)
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
    assert _find(root, record) == (record, blob)


def test_publish_by_builders_of_different_measurements_keeps_one_whole_record(tmp_path: Path) -> None:
    root = Root(tmp_path / "cache")
    Publisher(root).create()
    Publisher(root).publish_toolchain(make_toolchain())
    builders = 3
    together = barrier(builders)
    records = [make_record(synthetic_blob(number), compile_seconds=1.5 * number) for number in range(builders)]
    assert len({record.id for record in records}) == 1

    def build(number: int) -> None:
        together.wait(10)
        for _ in range(30):
            Publisher(root).publish(records[number], synthetic_blob(number))

    join(*(start(build, number) for number in range(builders)))
    assert _find(root, records[0]) in [(record, synthetic_blob(n)) for n, record in enumerate(records)]
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
    assert Publisher(Root(path)).sweep_temporaries() == 1
    assert not old.exists()
    assert young.exists()
    assert not isinstance(_find(Root(path), record), Miss)


def test_sweep_temporaries_does_not_follow_symlinks(tmp_path: Path) -> None:
    publish_synthetic(tmp_path / "cache")
    precious = tmp_path / "elsewhere" / ".tmp-precious"
    precious.parent.mkdir()
    precious.write_bytes(b"somebody else's")
    os.utime(precious, (1, 1))
    (tmp_path / "cache" / "link").symlink_to(precious.parent)
    assert Publisher(Root(tmp_path / "cache")).sweep_temporaries() == 0
    assert precious.exists()


def test_find_deletes_nothing_however_damaged(root: Root) -> None:
    record = make_record()
    Publisher(root).publish(record, SYNTHETIC_BLOB)
    overwrite(blob_file(root.path, record), b"damage")
    before = snapshot(root.path)
    _find(root, record)
    verify_root(root)
    assert snapshot(root.path) == before


def test_records_foreign_json_among_them_is_a_finding_and_the_rest_is_listed(root: Root) -> None:
    record = make_record()
    Publisher(root).publish(record, SYNTHETIC_BLOB)
    foreign = record_file(root.path, record).with_name("foreign.json")
    foreign.write_bytes(render_file({"schema": "another/1"}))
    finding, listed = sorted(root.records(), key=lambda item: isinstance(item, Record))
    assert isinstance(finding, Finding)
    assert "another/1" in finding.problem
    assert listed == record

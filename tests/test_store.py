"""Reading a cache directory: what is found, and what damage and a failing system come to."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

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
from fa4_precompile.errors import RecordError
from support import (
    SYNTHETIC_BLOB,
    always,
    blob_file,
    fail_call,
    find_whole,
    make_manifest,
    make_record,
    make_target,
    make_toolchain,
    numbered_record,
    overwrite,
    publish_synthetic,
    record_file,
    require_miss,
    snapshot,
    synthetic_blob,
)

# Publishing and reading


def test_find_published_kernel_returns_its_record_and_bytes(root: Root) -> None:
    record = make_record()
    Publisher(root).publish(record, SYNTHETIC_BLOB)
    assert find_whole(root, record) == (record, SYNTHETIC_BLOB)


@pytest.mark.parametrize("size", [0, 1, 4096, 3_000_000])
def test_find_blob_of_any_size_comes_back_whole(root: Root, size: int) -> None:
    blob = os.urandom(size)
    record = make_record(blob)
    Publisher(root).publish(record, blob)
    assert find_whole(root, record) == (record, blob)


def test_find_unknown_kernel_is_absent(root: Root) -> None:
    assert require_miss(root, make_record()).reason is MissReason.ABSENT


def test_find_root_that_does_not_exist_is_said_and_is_not_made(tmp_path: Path) -> None:
    miss = require_miss(Root(tmp_path / "nowhere"), make_record())
    assert miss.reason is MissReason.LAYOUT
    assert "does not exist" in miss.detail
    assert list(tmp_path.iterdir()) == []


def test_find_other_toolchain_is_absent(root: Root) -> None:
    record = make_record()
    Publisher(root).publish(record, SYNTHETIC_BLOB)
    other = make_record(toolchain=make_toolchain(tvm_ffi="1.0-synthetic").id)
    assert require_miss(root, other).reason is MissReason.ABSENT


def test_lists_return_what_was_published(tmp_path: Path) -> None:
    records = publish_synthetic(tmp_path / "cache", 3)
    root = Root(tmp_path / "cache")
    assert sorted(root.records(), key=str) == sorted(records, key=str)
    assert list(root.toolchains()) == [make_toolchain()]
    assert list(root.manifests()) == [make_manifest(*records)]
    assert root.manifest(make_toolchain().id, "d" * 64, make_target()) == make_manifest(*records)
    assert root.manifest(make_toolchain().id, "e" * 64, make_target()) is None


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
    miss = require_miss(root, record)
    assert miss.reason is MissReason.DAMAGED
    assert which(root.path, record).name in miss.detail


def test_find_missing_blob_is_damage_not_absence(root: Root) -> None:
    record = make_record()
    Publisher(root).publish(record, SYNTHETIC_BLOB)
    blob_file(root.path, record).unlink()
    miss = require_miss(root, record)
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
    assert [require_miss(root, record).reason for record in records] == [MissReason.DAMAGED] * 2


def test_find_record_under_another_kernels_name_is_a_miss(root: Root) -> None:
    one, other = numbered_record(0), numbered_record(1)
    Publisher(root).publish(one, synthetic_blob(0))
    path = record_file(root.path, other)
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(record_file(root.path, one), path)
    miss = require_miss(root, other)
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
    assert require_miss(root, record).reason is MissReason.UNREADABLE
    (root.path / "cache.txt").write_text("no cache")
    miss = require_miss(Root(root.path / "cache.txt"), record)
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
    assert require_miss(root, _plant(root, data)).reason is MissReason.DAMAGED


@pytest.mark.parametrize("number", [b"9e512", b"NaN", b"-Infinity"])
def test_find_record_with_a_number_that_is_no_number_is_a_miss(root: Root, number: bytes) -> None:
    data = make_record().render_file()
    size = b'"blob_bytes": %d' % len(SYNTHETIC_BLOB)
    assert size in data
    assert require_miss(root, _plant(root, data.replace(size, b'"blob_bytes": ' + number))).reason is MissReason.DAMAGED


@pytest.mark.parametrize("blob", ["", "..", "../../../../etc/passwd", "a\0b", "x" * 300, "\ud800"], ids=ascii)
def test_find_sealed_record_that_names_an_impossible_blob_is_a_miss(root: Root, blob: str) -> None:
    assert isinstance(find_whole(root, _plant(root, replace(make_record(), blob=BlobDigest(blob)).render_file())), Miss)


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
    assert require_miss(root, record).reason is MissReason.DAMAGED


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
    fail_call(monkeypatch, "open", number, always)
    found = reader.find(record.toolchain, record.id)
    assert isinstance(found, Miss)
    assert found.reason is MissReason.UNREADABLE
    assert os.strerror(number) in found.detail


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


def test_find_deletes_nothing_however_damaged(root: Root) -> None:
    record = make_record()
    Publisher(root).publish(record, SYNTHETIC_BLOB)
    overwrite(blob_file(root.path, record), b"damage")
    before = snapshot(root.path)
    find_whole(root, record)
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

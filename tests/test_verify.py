"""Checking a whole cache: every kind of damage is found and named, and nothing else is."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fa4_precompile.cache.key import BlobDigest
from fa4_precompile.cache.library import Library
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.record import Record
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.trust import Trust
from fa4_precompile.cache.verify import verify_root
from support import (
    SYNTHETIC_BLOB,
    SYNTHETIC_LIBRARY,
    blob_file,
    deadline,
    make_manifest,
    make_record,
    make_toolchain,
    numbered_record,
    overwrite,
    publish_synthetic,
    record_file,
    synthetic_blob,
)

_COUNT = 3


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A cache of three synthetic kernels."""
    publish_synthetic(tmp_path / "cache", _COUNT)
    return tmp_path / "cache"


def _findings(path: Path) -> dict[str, str]:
    with deadline(120):
        return {finding.path: finding.problem for finding in verify_root(Root(path)).findings}


def _relative(path: Path, file: Path) -> str:
    return file.relative_to(path).as_posix()


def _manifest_file(path: Path, _: Record) -> Path:
    (found,) = (path / "manifests").rglob("*.json")
    return found


def _toolchain_file(path: Path, _: Record) -> Path:
    return path / "toolchains" / f"{make_toolchain().id}.json"


def test_verify_whole_cache_has_no_findings_and_counts(path: Path) -> None:
    result = verify_root(Root(path))
    assert (result.records, result.findings) == (_COUNT, [])
    assert result.bytes == sum(len(synthetic_blob(number)) for number in range(_COUNT))
    assert (result.libraries, result.library_bytes) == (1, len(SYNTHETIC_LIBRARY))
    counts = {"bytes": result.bytes, "libraries": 1, "library_bytes": len(SYNTHETIC_LIBRARY)}
    assert result.render() == {"records": _COUNT, **counts, "findings": []}


def test_verify_finds_a_run_time_library_that_is_damaged_or_gone(path: Path) -> None:
    (library,) = (item for item in Root(path).libraries() if isinstance(item, Library))
    blob = path / "blobs" / "sha256" / library.blob[:2] / library.blob
    for problem in ("damaged", "missing"):
        overwrite(blob, b"?" * library.blob_bytes) if problem == "damaged" else blob.unlink()
        (finding,) = verify_root(Root(path)).findings
        assert finding.path == f"libraries/{library.toolchain}.json"
        assert problem in finding.problem


def test_verify_blob_of_two_kernels_is_counted_once(tmp_path: Path) -> None:
    root = Root(tmp_path)
    Publisher(root).create()
    Publisher(root).publish_toolchain(make_toolchain())
    for slot in ("fwd", "bwd"):
        Publisher(root).publish(make_record(slot=slot), SYNTHETIC_BLOB)
    assert verify_root(root).bytes == len(SYNTHETIC_BLOB)


def test_verify_opens_a_folder_of_blobs_once_for_all_that_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_synthetic(tmp_path, 600)
    prefixes = 2 * len(list(tmp_path.glob("records/*/*"))) + 4 * len(list(tmp_path.glob("blobs/sha256/*")))
    opened, real = 0, os.open

    def count(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        nonlocal opened
        opened += bool(flags & os.O_DIRECTORY)
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", count)
    assert verify_root(Root(tmp_path)).findings == []
    assert opened <= prefixes + 20


def test_verify_reads_a_large_blob_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, blob = Root(tmp_path), bytes(1 << 20)
    Publisher(root).create()
    Publisher(root).publish_toolchain(make_toolchain())
    Publisher(root).publish(make_record(blob), blob)
    pieces, real = [], os.read

    def read(descriptor: int, size: int) -> bytes:
        pieces.append(len(data := real(descriptor, size)))
        return data

    monkeypatch.setattr(os, "read", read)
    assert verify_root(root).bytes == len(blob)
    assert max(pieces) <= 1 << 16


def test_verify_empty_cache_has_no_findings(tmp_path: Path) -> None:
    Publisher(Root(tmp_path)).create()
    assert verify_root(Root(tmp_path)).findings == []


def _first_byte(file: Path) -> None:
    data = file.read_bytes()
    overwrite(file, bytes([data[0] ^ 0x20]) + data[1:])


def _last_byte(file: Path) -> None:
    data = file.read_bytes()
    overwrite(file, data[:-1] + bytes([data[-1] ^ 1]))


def _shorten(file: Path) -> None:
    overwrite(file, file.read_bytes()[:-1])


def _empty(file: Path) -> None:
    overwrite(file, b"")


def _nest(file: Path) -> None:
    overwrite(file, b"[" * 100_000)


def _open_to_all(file: Path) -> None:
    file.chmod(0o666)


def _link(file: Path) -> None:
    aside = file.with_name("aside")
    file.rename(aside)
    file.symlink_to(aside)


def _fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o444)


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


_DAMAGES = [_first_byte, _last_byte, _shorten, _empty, _nest]
_REFUSED = [_open_to_all, _link, _fifo, _folder]


@pytest.mark.parametrize("damage", _DAMAGES)
@pytest.mark.parametrize("which", [record_file, blob_file])
def test_verify_damage_to_a_kernel_is_found_and_breaks_its_manifest(
    path: Path, which: Callable[[Path, Record], Path], damage: Callable[[Path], None]
) -> None:
    record = numbered_record(1)
    damage(which(path, record))
    findings = _findings(path)
    assert set(findings) == {
        _relative(path, record_file(path, record)),
        _relative(path, _manifest_file(path, record)),
    }
    assert f"1 of its {_COUNT} kernels" in findings[_relative(path, _manifest_file(path, record))]
    assert verify_root(Root(path)).records == _COUNT - 1


@pytest.mark.parametrize("damage", _DAMAGES)
def test_verify_damage_to_a_manifest_is_found(path: Path, damage: Callable[[Path], None]) -> None:
    file = _manifest_file(path, numbered_record(0))
    damage(file)
    assert set(_findings(path)) == {_relative(path, file)}


@pytest.mark.parametrize("damage", _DAMAGES)
def test_verify_damage_to_a_toolchain_is_found_with_the_kernels_that_it_built(
    path: Path, damage: Callable[[Path], None]
) -> None:
    file = _toolchain_file(path, numbered_record(0))
    damage(file)
    records = {_relative(path, record_file(path, numbered_record(number))) for number in range(_COUNT)}
    assert set(_findings(path)) == {_relative(path, file)} | records


@pytest.mark.parametrize("which", [record_file, blob_file])
def test_verify_missing_file_is_found(path: Path, which: Callable[[Path, Record], Path]) -> None:
    record = numbered_record(2)
    which(path, record).unlink()
    assert _relative(path, _manifest_file(path, record)) in _findings(path)


def test_verify_missing_toolchain_is_found(path: Path) -> None:
    _toolchain_file(path, numbered_record(0)).unlink()
    assert any("is not in the cache" in problem for problem in _findings(path).values())


def test_verify_swapped_blobs_are_both_found(path: Path) -> None:
    one, other = blob_file(path, numbered_record(0)), blob_file(path, numbered_record(1))
    first, second = one.read_bytes(), other.read_bytes()
    overwrite(one, second)
    overwrite(other, first)
    assert len([name for name in _findings(path) if name.startswith("records/")]) == 2


@pytest.mark.parametrize("which", [record_file, _manifest_file, _toolchain_file])
def test_verify_file_under_another_name_is_found(path: Path, which: Callable[[Path, Record], Path]) -> None:
    file = which(path, numbered_record(0))
    copy = file.with_name(f"{'0' * 32}.json")
    copy.write_bytes(file.read_bytes())
    copy.chmod(0o444)
    assert set(_findings(path)) == {_relative(path, copy)}


@pytest.mark.parametrize("blob", ["a\0b", "\ud800", "..", "x" * 300], ids=ascii)
def test_verify_sealed_record_that_names_an_impossible_blob_is_found(path: Path, blob: str) -> None:
    record = replace(numbered_record(0), blob=BlobDigest(blob))
    overwrite(record_file(path, record), record.render_file())
    assert _relative(path, record_file(path, record)) in _findings(path)


def test_verify_manifest_of_kernels_that_are_not_here_is_found(path: Path) -> None:
    manifest = make_manifest(numbered_record(7), numbered_record(8), spec_digest="e" * 64)
    file = Publisher(Root(path)).publish_manifest(manifest)
    assert _findings(path) == {_relative(path, file): "2 of its 2 kernels are missing or damaged"}


@pytest.mark.parametrize("refused", _REFUSED)
@pytest.mark.parametrize("which", [record_file, blob_file, _manifest_file, _toolchain_file])
def test_verify_file_that_is_not_to_be_trusted_is_found_as_such(
    path: Path, which: Callable[[Path, Record], Path], refused: Callable[[Path], None]
) -> None:
    record = numbered_record(1)
    file = which(path, record)
    refused(file)
    with deadline(120):
        found = [finding.path for finding in verify_root(Root(path)).findings if finding.untrusted]
    assert found == [_relative(path, record_file(path, record) if which is blob_file else file)]


def test_verify_root_that_others_can_write_is_found_once_unless_allowed(path: Path) -> None:
    path.chmod(0o777)
    assert [finding.untrusted for finding in verify_root(Root(path)).findings] == [str(path)]
    assert verify_root(Root(path, Trust.ANY)).findings == []


def test_verify_what_nobody_names_is_no_finding(path: Path) -> None:
    orphan = blob_file(path, numbered_record(99))
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"a killed builder's blob")
    for folder in (path, path / "blobs", record_file(path, numbered_record(0)).parent, path / "manifests"):
        (folder / ".tmp-0123456789abcdef").write_bytes(b"half")
        (folder / ".tmp-0123.json").write_bytes(b"half")
        (folder / "notes.txt").write_text("somebody's")
    assert _findings(path) == {}

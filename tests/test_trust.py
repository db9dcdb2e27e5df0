"""Whose files are read: nothing that somebody else could have written, and nothing that is not a plain file."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from fa4_precompile.cache.outcome import Hit, Miss, MissReason
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.record import Record
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.trust import Trust
from fa4_precompile.errors import UntrustedError
from support import blob_file, deadline, give_away, publish_synthetic, record_file, synthetic_blob

Part = Callable[[Path, Record], Path]

_FILES: dict[str, Part] = {"record": record_file, "blob": blob_file}
_FOLDERS: dict[str, Part] = {
    "root": lambda path, _: path,
    "records": lambda path, _: path / "records",
    "toolchain-folder": lambda path, record: path / "records" / record.toolchain,
    "prefix-folder": lambda path, record: record_file(path, record).parent,
    "blobs": lambda path, _: path / "blobs",
    "sha256": lambda path, _: path / "blobs" / "sha256",
    "blob-folder": lambda path, record: blob_file(path, record).parent,
}
_PARTS = _FOLDERS | _FILES
_BELOW_ROOT = {name: part for name, part in _PARTS.items() if name != "root"}


def _parametrize(parts: dict[str, Part]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("part", parts.values(), ids=parts.keys())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A cache of one synthetic kernel."""
    publish_synthetic(tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def record(path: Path) -> Record:
    """Its record."""
    (found,) = Root(path).records()
    assert isinstance(found, Record)
    return found


def _find(path: Path, record: Record, trust: Trust = Trust.OWN) -> Hit | Miss:
    with deadline(120):
        return Root(path, trust).find(record.toolchain, record.id)


def _refusal(path: Path, record: Record, trust: Trust = Trust.OWN) -> str:
    found = _find(path, record, trust)
    assert isinstance(found, Miss)
    assert found.reason is MissReason.UNTRUSTED
    return f"`{found.path}`: {found.detail}"


def _is_hit(found: Hit | Miss) -> bool:
    return isinstance(found, Hit) and found.blob == synthetic_blob(0)


@_parametrize(_PARTS)
@pytest.mark.parametrize("bit", [stat.S_IWGRP, stat.S_IWOTH], ids=["group", "others"])
def test_find_part_that_others_can_write_is_refused_by_name(path: Path, record: Record, part: Part, bit: int) -> None:
    target = part(path, record)
    target.chmod(stat.S_IMODE(target.stat().st_mode) | bit)
    detail = _refusal(path, record)
    assert f"`{target}`" in detail
    assert "others can write it" in detail
    assert _is_hit(_find(path, record, Trust.ANY))


def test_find_sticky_bit_does_not_make_a_folder_of_everybody_trusted(path: Path, record: Record) -> None:
    path.chmod(0o1777)
    _refusal(path, record)


@_parametrize(_PARTS)
def test_find_part_of_another_user_is_refused_by_name(
    path: Path, record: Record, part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", give_away(part(path, record)))
    assert "belongs to user" in _refusal(path, record)
    assert _is_hit(_find(path, record, Trust.ANY))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of root")
def test_find_cache_of_root_is_trusted_by_everybody(
    path: Path, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert _is_hit(_find(path, record))


@_parametrize(_BELOW_ROOT)
@pytest.mark.parametrize("trust", Trust)
def test_find_symlink_below_the_root_is_refused_whoever_is_trusted(
    path: Path, record: Record, part: Part, trust: Trust
) -> None:
    target = part(path, record)
    aside = path.parent / "aside"
    target.rename(aside)
    target.symlink_to(aside)
    detail = _refusal(path, record, trust)
    assert f"`{target}`" in detail
    assert "symlink" in detail


def test_find_dangling_symlink_is_refused_and_not_taken_for_absence(path: Path, record: Record) -> None:
    target = record_file(path, record)
    target.unlink()
    target.symlink_to("nowhere")
    assert "symlink" in _refusal(path, record)


def test_find_root_reached_through_a_symlink_is_read(path: Path, record: Record) -> None:
    link = path.parent / "link"
    link.symlink_to(path)
    assert _is_hit(_find(link, record))


@_parametrize(_FILES)
@pytest.mark.parametrize("trust", Trust)
def test_find_fifo_in_a_files_place_is_refused_and_does_not_hang(
    path: Path, record: Record, part: Part, trust: Trust
) -> None:
    target = part(path, record)
    target.unlink()
    os.mkfifo(target, 0o644)
    assert "no regular file" in _refusal(path, record, trust)


@_parametrize(_FILES)
def test_find_folder_in_a_files_place_is_refused(path: Path, record: Record, part: Part) -> None:
    target = part(path, record)
    target.unlink()
    target.mkdir()
    assert "no regular file" in _refusal(path, record)


@_parametrize(_FILES)
def test_find_socket_in_a_files_place_is_a_miss(
    path: Path, record: Record, part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = part(path, record)
    target.unlink()
    monkeypatch.chdir(target.parent)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        Path("socket").rename(target.name)
        assert isinstance(_find(path, record), Miss)


def test_find_file_swapped_for_a_symlink_after_the_check_is_never_followed(
    path: Path, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = path.parent / "evil"
    evil.write_bytes(b"somebody else's code")
    target = blob_file(path, record)
    real = os.fstat

    def swap(descriptor: int) -> os.stat_result:
        if not target.is_symlink():
            target.unlink()
            target.symlink_to(evil)
        return real(descriptor)

    monkeypatch.setattr(os, "fstat", swap)
    found = _find(path, record)
    assert not isinstance(found, Hit) or found.blob == synthetic_blob(0)


def test_commands_refuse_a_root_that_others_can_write(path: Path) -> None:
    path.chmod(0o775)
    for use in (Root(path).require_layout, Publisher(Root(path)).create):
        with pytest.raises(UntrustedError) as caught:
            use()
        assert caught.value.path == str(path)
        assert caught.value.exit_code == 4
        assert str(path) in caught.value.hint
    Root(path, Trust.ANY).require_layout()


def test_create_in_a_folder_that_others_can_write_is_refused_and_leaves_it_empty(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(UntrustedError):
        Publisher(Root(folder)).create()
    assert list(folder.iterdir()) == []

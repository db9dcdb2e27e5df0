"""What moves when a few kernels of many are new: those, and what it takes to find them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from carried import HASTY, push_folder, require_whole, take
from fa4_precompile.cache.contents import Contents
from fa4_precompile.cache.listing import list_contents
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.store import Root
from fa4_precompile.carry.pack import write_pack
from fa4_precompile.carry.root import RootSource
from fa4_precompile.carry.urls import open_source
from support import blob_file, make_manifest, numbered_record, publish_synthetic, record_file, synthetic_blob
from web_server import serving

pytest.importorskip("aiohttp", reason="the extra `ship` is not installed")
pytest.importorskip("fsspec", reason="the extra `ship` is not installed")
pytest.importorskip("zstandard", reason="the extra `ship` is not installed")

KERNELS = 1000
NEW = 10


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of many kernels: `origin` whole, `behind` without a few; and it as a `tree` and as a pack."""
    folder = tmp_path_factory.mktemp("shelf")
    records = [numbered_record(number) for number in range(KERNELS)]
    publish_synthetic(folder / "origin", 0)
    for number, record in enumerate(records):  # not as `publish` does: it would sync each
        _write(blob_file(folder / "origin", record), synthetic_blob(number))
        _write(record_file(folder / "origin", record), record.render_file())
    Publisher(Root(folder / "origin")).publish_manifest(make_manifest(*records))
    shutil.copytree(folder / "origin", folder / "behind")
    for record in records[::97][:NEW]:
        blob_file(folder / "behind", record).unlink()
        record_file(folder / "behind", record).unlink()
    push_folder(folder / "origin", folder / "tree")
    source = RootSource(Root(folder / "origin"))
    with (folder / "kernels.tar.zst").open("wb") as out:
        write_pack(source, source.contents(), out)
    return folder


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _new(shelf: Path) -> Contents:
    return list_contents(Root(shelf / "origin")).only(lambda entry: not (shelf / "behind" / entry.path).exists())


def test_tree_of_which_ten_kernels_are_new_sends_those_and_its_list(shelf: Path, tmp_path: Path) -> None:
    contents, new = list_contents(Root(shelf / "origin")), _new(shelf)
    assert len(new.entries) == 2 * NEW
    shutil.copytree(shelf / "behind", tmp_path / "cache")
    with serving(shelf / "tree") as told:
        moved = take(open_source(told.url, patience=HASTY), tmp_path / "cache")
        assert told.sent == new.size + len(contents.render())
        assert len(told.requests) == 1 + 2 * NEW
    assert (moved.came, moved.bytes) == (2 * NEW, new.size)
    require_whole(tmp_path / "cache", contents)


def test_pack_of_which_ten_kernels_are_new_sends_those_and_its_list(shelf: Path, tmp_path: Path) -> None:
    contents, new = list_contents(Root(shelf / "origin")), _new(shelf)
    shutil.copytree(shelf / "behind", tmp_path / "cache")
    with serving(shelf) as told:
        source = open_source(f"{told.url}/kernels.tar.zst", patience=HASTY)
        to_find = told.sent
        moved = take(source, tmp_path / "cache")
        assert told.sent - to_find <= new.size
        assert len(told.requests) <= 2 * NEW + 10
    assert to_find < len(contents.render()) + 20 * KERNELS
    assert (moved.came, moved.bytes) == (2 * NEW, new.size)
    require_whole(tmp_path / "cache", contents)


def test_push_of_which_ten_kernels_are_new_writes_those(shelf: Path, tmp_path: Path) -> None:
    new = _new(shelf)
    shutil.copytree(shelf / "behind", tmp_path / "tree")  # as an earlier push would have left it, but for the seal
    shutil.copy(shelf / "tree" / "seal", tmp_path / "tree" / "seal")
    moved = push_folder(shelf / "origin", tmp_path / "tree")
    assert (moved.came, moved.bytes) == (2 * NEW, new.size)

"""The layout of a cache directory, and what is made of folders that are none."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fa4_precompile.cache import layout
from fa4_precompile.cache.outcome import Miss
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.verify import verify_root
from fa4_precompile.errors import CacheError, Fa4PrecompileError
from support import (
    barrier,
    blob_file,
    deadline,
    find_whole,
    join,
    make_toolchain,
    overwrite,
    publish_synthetic,
    record_file,
    require_miss,
    snapshot,
    start,
    synthetic_blob,
    temporaries,
)

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


def test_create_parents_that_are_missing_are_no_more_writable_than_the_cache(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        Publisher(Root(tmp_path / "a" / "b" / "cache")).create()
    finally:
        os.umask(before)
    for folder in ("a", "a/b", "a/b/cache"):
        assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == 0o755


def test_create_parents_that_are_there_keep_their_modes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a").chmod(0o700)
    Publisher(Root(tmp_path / "a" / "b" / "cache")).create()
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700


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
        assert find_whole(Root(tmp_path / name), record) == (record, synthetic_blob(0))
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
    assert not isinstance(find_whole(root, record), Miss)
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
    assert "layout" in require_miss(Root(tmp_path / "cache"), record).detail


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
        (folder / name).write_bytes(layout.TAG_CONTENT if name == layout.TAG else b"")
    Publisher(Root(folder)).create()
    Root(folder).require_layout()


_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55\n"


def _tag_of_cargo(tag: Path) -> None:
    tag.write_bytes(_SIGNATURE + b"# This file is a cache directory tag created by cargo.\n")


def _tag_that_goes_on(tag: Path) -> None:
    tag.write_bytes(layout.TAG_CONTENT + b"# and more\n")


def _tag_elsewhere(tag: Path) -> None:
    (tag.parent / "elsewhere").write_bytes(layout.TAG_CONTENT)
    tag.symlink_to("elsewhere")


def _socket(tag: Path) -> None:
    os.mknod(tag, stat.S_IFSOCK | 0o644)


@pytest.mark.parametrize(
    "make",
    [_tag_of_cargo, _tag_that_goes_on, _tag_elsewhere, _socket, Path.touch, Path.mkdir, os.mkfifo],
    ids=lambda make: make.__name__,
)
@pytest.mark.parametrize("mode", [0o755, 0o775], ids=oct)
def test_create_folder_with_a_tag_that_is_not_ours_is_refused_and_left_alone(
    tmp_path: Path, make: Callable[[Path], None], mode: int
) -> None:
    folder = tmp_path / "target"
    folder.mkdir()
    (folder / "README").write_text("about what cargo has built")
    make(folder / layout.TAG)
    if not (folder / layout.TAG).is_symlink():
        (folder / layout.TAG).chmod(mode)
    before = snapshot(folder)
    with deadline(60), pytest.raises(CacheError, match="holds files"):
        Publisher(Root(folder)).create()
    assert snapshot(folder) == before


def test_create_by_many_builders_at_once_works_for_all(tmp_path: Path) -> None:
    rounds, builders = 25, 4
    together = barrier(builders)

    def create() -> None:
        errors = []
        for number in range(rounds):
            together.wait(120)
            try:
                Publisher(Root(tmp_path / f"cache-{number}")).create()
            except Fa4PrecompileError as error:
                errors.append(error)
        assert errors == []

    join(*(start(create) for _ in range(builders)))

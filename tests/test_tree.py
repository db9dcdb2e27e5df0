"""A tree at a URL as it is written: what is there is not written again, and its list comes last."""

from __future__ import annotations

from pathlib import Path

import pytest

from carried import HASTY, make_tree, no_matter, push_folder, require_whole, take
from fa4_precompile.cache.contents import Contents
from fa4_precompile.cache.listing import list_contents
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.verify import verify_root
from fa4_precompile.carry.remote import Remote
from fa4_precompile.carry.root import RootSource
from fa4_precompile.carry.tree import TreeSource, push_tree
from fa4_precompile.errors import CarryError, RecordError, RefusedError
from support import make_manifest, numbered_record, overwrite, publish_synthetic, synthetic_blob, temporaries

pytest.importorskip("fsspec", reason="the extra `ship` is not installed")


def _tree(folder: Path) -> TreeSource:
    return TreeSource(Remote(folder.as_uri(), HASTY))


@pytest.fixture
def contents(tmp_path: Path) -> Contents:
    """What is in `tmp_path / "origin"`, and was pushed to `tmp_path / "tree"`."""
    return make_tree(tmp_path)


def _add_kernel(cache: Path, number: int) -> None:
    """Add a kernel, and replace the manifest."""
    record = numbered_record(number)
    Publisher(Root(cache)).publish(record, synthetic_blob(number))
    Publisher(Root(cache)).publish_manifest(make_manifest(*(numbered_record(other) for other in range(number + 1))))


def test_tree_is_received_whole(tmp_path: Path, contents: Contents) -> None:
    assert _tree(tmp_path / "tree").contents() == contents
    take(_tree(tmp_path / "tree"), tmp_path / "cache")
    require_whole(tmp_path / "cache", contents)


def test_tree_copied_with_other_tools_is_a_root(tmp_path: Path, contents: Contents) -> None:
    assert list_contents(Root(tmp_path / "tree")) == contents
    assert not verify_root(Root(tmp_path / "tree")).findings
    assert not temporaries(tmp_path / "tree")


def test_tree_pushed_again_is_not_written(tmp_path: Path, contents: Contents) -> None:
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "tree").rglob("*")}
    assert push_folder(tmp_path / "origin", tmp_path / "tree").came == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "tree").rglob("*")} == before


def test_tree_gets_what_is_new_and_the_manifest_that_was_replaced(tmp_path: Path, contents: Contents) -> None:
    _add_kernel(tmp_path / "origin", 3)
    assert push_folder(tmp_path / "origin", tmp_path / "tree").came == 3
    take(_tree(tmp_path / "tree"), tmp_path / "cache")
    require_whole(tmp_path / "cache", list_contents(Root(tmp_path / "origin")))


def test_tree_whose_files_are_cut_short_or_gone_gets_them_again(tmp_path: Path, contents: Contents) -> None:
    blobs = sorted((tmp_path / "tree").glob("blobs/*/*/*"))
    overwrite(blobs[0], blobs[0].read_bytes()[:-1])
    blobs[1].unlink()
    next((tmp_path / "tree").glob("records/*/*/*")).unlink()
    assert push_folder(tmp_path / "origin", tmp_path / "tree").came == 3
    take(_tree(tmp_path / "tree"), tmp_path / "cache")
    require_whole(tmp_path / "cache", contents)


def test_tree_whose_seal_is_damaged_gets_all_but_blobs_again(tmp_path: Path, contents: Contents) -> None:
    overwrite(tmp_path / "tree" / "seal", b"damaged")
    with pytest.raises(RecordError):
        _tree(tmp_path / "tree").contents()
    blobs = len(list(contents.of_kind("blobs")))
    assert push_folder(tmp_path / "origin", tmp_path / "tree").came == len(contents.entries) - blobs
    assert _tree(tmp_path / "tree").contents() == contents


def test_tree_is_sealed_last(tmp_path: Path, contents: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    write = Remote.write

    def noted(remote: Remote, relative: str, data: bytes) -> None:
        write(remote, relative, data)
        written.append(relative)

    monkeypatch.setattr(Remote, "write", noted)
    push_folder(tmp_path / "origin", tmp_path / "other", signature=b"signed")
    kinds = [path.partition("/")[0] for path in written]
    assert kinds[-2:] == ["seal.dsse.json", "seal"]
    blobs = [place for place, kind in enumerate(kinds) if kind == "blobs"]
    assert max(blobs) < min(place for place, kind in enumerate(kinds) if kind == "records")


def test_tree_of_a_damaged_cache_is_not_pushed(tmp_path: Path) -> None:
    publish_synthetic(tmp_path / "origin", 3)
    blob = next((tmp_path / "origin").glob("blobs/*/*/*"))
    overwrite(blob, blob.read_bytes()[:-1] + b"?")
    with pytest.raises(RefusedError, match="does not have the bytes"):
        push_folder(tmp_path / "origin", tmp_path / "tree")
    with pytest.raises(CarryError, match="it has no `seal`"):
        _tree(tmp_path / "tree").contents()
    assert not (tmp_path / "tree" / "blobs" / "sha256" / blob.name[:2] / blob.name).exists()


def test_tree_has_the_signature_of_what_was_pushed_last(tmp_path: Path, contents: Contents) -> None:
    assert _tree(tmp_path / "tree").signature() == b""
    push_folder(tmp_path / "origin", tmp_path / "tree", signature=b"signed")
    assert _tree(tmp_path / "tree").signature() == b"signed"
    push_folder(tmp_path / "origin", tmp_path / "tree")
    assert _tree(tmp_path / "tree").signature() == b""


def test_tree_keeps_what_others_have_put_there(tmp_path: Path, contents: Contents) -> None:
    (tmp_path / "tree" / "notes.txt").write_text("mine")
    _add_kernel(tmp_path / "origin", 3)
    push_folder(tmp_path / "origin", tmp_path / "tree")
    assert (tmp_path / "tree" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["seal", "seal.dsse.json"])
def test_tree_with_a_huge_list_or_signature_is_refused(tmp_path: Path, contents: Contents, name: str) -> None:
    path = tmp_path / "tree" / name
    if path.exists():
        path.chmod(0o600)
    with path.open("wb") as file:
        file.truncate(1 << 40)
    source = _tree(tmp_path / "tree")
    with pytest.raises(RefusedError, match="more"):
        source.contents() if name == "seal" else source.signature()


def test_tree_where_nobody_may_write_says_so(tmp_path: Path) -> None:
    publish_synthetic(tmp_path / "origin", 1)
    (tmp_path / "file").write_text("")
    source = RootSource(Root(tmp_path / "origin"))
    with pytest.raises(CarryError):
        push_tree(source, source.contents(), b"", Remote((tmp_path / "file" / "tree").as_uri(), HASTY), no_matter)

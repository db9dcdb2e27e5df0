"""Copying just what a spec needs out of a cache."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fa4_precompile.cache.listing import list_contents
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.verify import verify_root
from product import run
from support import (
    blob_file,
    make_manifest,
    make_target,
    numbered_record,
    overwrite,
    publish_synthetic,
    synthetic_blob,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A cache of two builds, and of a kernel of neither."""
    publish_synthetic(tmp_path / "cache", 3)
    publisher = Publisher(Root(tmp_path / "cache"))
    for number in (5, 6):
        publisher.publish(numbered_record(number), synthetic_blob(number))
    other = make_manifest(numbered_record(1), numbered_record(5), spec="other", spec_digest="e" * 64)
    publisher.publish_manifest(other)
    return tmp_path / "cache"


def test_export_has_just_what_a_spec_needs_and_verifies(path: Path, tmp_path: Path) -> None:
    done = run("export", "other", tmp_path / "out", "--cache", path, "--json")
    assert done.code == 0, done.err
    root = Root(tmp_path / "out")
    assert [one.name for one in (tmp_path / "out" / "libraries").iterdir()]
    assert {record.id for record in root.records()} == {numbered_record(n).id for n in (1, 5)}  # type: ignore[union-attr]
    assert verify_root(root).findings == []
    assert json.loads(done.out)["fingerprint"] == list_contents(root).fingerprint


def test_export_of_both_specs_one_after_the_other_is_all_that_is_in_a_build(path: Path, tmp_path: Path) -> None:
    for spec in ("synthetic", "other"):
        assert run("export", spec, tmp_path / "out", "--cache", path).code == 0
    again = run("export", "other", tmp_path / "out", "--cache", path)
    assert "(0 new files, 0.0 MB)" in again.out
    assert len(list(Root(tmp_path / "out").records())) == 4
    assert not (tmp_path / "out" / "seal").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing", "OUT"], "has no build"),
        (["other", "OUT", "--target", "h100"], "has no build"),
        (["other", "CACHE"], "is the cache itself"),
        (["other", "OUT", "--jobs", "2"], "says nothing without"),
        (["other", "OUT", "--to-flash-attention", "--arch", "sm_100a"], "name a target"),
    ],
)
def test_export_that_cannot_be_meant_is_refused(path: Path, tmp_path: Path, arguments: list[str], words: str) -> None:
    places = {"OUT": str(tmp_path / "out"), "CACHE": os.path.join(path.parent, ".", path.name)}
    done = run("export", *(places.get(one, one) for one in arguments), "--cache", path)
    assert done.code == 2, done.err
    assert words in done.err
    assert not (tmp_path / "out").exists()


def test_export_of_a_damaged_kernel_is_refused_and_leaves_what_reads_as_what_it_is(path: Path, tmp_path: Path) -> None:
    overwrite(blob_file(path, numbered_record(5)), b"x" * numbered_record(5).blob_bytes)
    done = run("export", "other", tmp_path / "out", "--cache", path)
    assert done.code == 4
    assert "does not have the bytes that the list of contents states" in done.err
    assert list(Root(tmp_path / "out").manifests()) == []
    assert verify_root(Root(tmp_path / "out")).findings == []


def test_export_for_one_target_leaves_the_others(path: Path, tmp_path: Path) -> None:
    elsewhere = make_target(name="b300", arch="sm_103a")
    record = numbered_record(8, arch="sm_103a")
    Publisher(Root(path)).publish(record, synthetic_blob(8))
    Publisher(Root(path)).publish_manifest(make_manifest(record, target=elsewhere))
    assert run("export", "synthetic", tmp_path / "out", "--target", "b300", "--cache", path).code == 0
    assert [found.id for found in Root(tmp_path / "out").records()] == [record.id]  # type: ignore[union-attr]

"""`push` and `pull` as they are used: what they move, what they say, and what they refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from carried import make_tree, require_whole
from command_line import Cli, require_error
from fa4_precompile.cache.contents import Contents
from fa4_precompile.cache.listing import list_contents
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.store import Root
from product import Finished
from registries import Registry
from support import (
    make_manifest,
    make_target,
    make_toolchain,
    numbered_record,
    publish_library,
    publish_synthetic,
    record_file,
    snapshot,
    synthetic_blob,
)
from web_server import Handler, on, saying, serving

pytest.importorskip("aiohttp", reason="the extra `ship` is not installed")
pytest.importorskip("fsspec", reason="the extra `ship` is not installed")
pytest.importorskip("oras", reason="the extra `ship` is not installed")
pytest.importorskip("zstandard", reason="the extra `ship` is not installed")


@pytest.fixture
def contents(tmp_path: Path) -> Contents:
    """What is in `tmp_path / "origin"`, and was pushed to `tmp_path / "tree"`."""
    return make_tree(tmp_path)


def _said(done: Finished) -> Any:
    assert done.code == 0, done.err
    return json.loads(done.out)


@pytest.mark.parametrize("name", ["tree", "kernels.tar.zst"])
def test_push_and_pull_carry_a_cache_and_only_what_is_new(cli: Cli, tmp_path: Path, name: str) -> None:
    publish_synthetic(tmp_path / "origin", 5)
    url = (tmp_path / "shelf" / name).as_uri()
    pushed = _said(cli("push", url, "--cache", tmp_path / "origin", "--json"))
    pulled = _said(cli("pull", url, "--cache", tmp_path / "cache", "--expect", pushed["fingerprint"], "--json"))
    contents = list_contents(Root(tmp_path / "origin"))
    require_whole(tmp_path / "cache", contents)
    assert (tmp_path / "cache" / "seal").read_bytes() == contents.render()
    assert pushed["kernels"] == pulled["kernels"] == 5
    assert pulled["new_files"] == pulled["files"] == len(contents.entries)
    assert pulled["new_bytes"] == pulled["bytes"] == contents.size
    again = _said(cli("pull", url, "--cache", tmp_path / "cache", "--json"))
    assert (again["new_files"], again["new_bytes"]) == (0, 0)
    assert again["fingerprint"] == pulled["fingerprint"] == pushed["fingerprint"] == contents.fingerprint


def test_pull_from_a_server_that_is_not_there_is_a_sentence(cli: Cli, tmp_path: Path) -> None:
    done = cli("pull", "ftp://127.0.0.1:1/kernels", "--cache", tmp_path / "cache")
    assert "can't be reached: " in require_error(done, 3)


@pytest.mark.parametrize("mode", [0o777, 0o2775])
def test_pull_into_a_volume_that_others_can_write_works_where_somebody_vouches(
    cli: Cli, tmp_path: Path, contents: Contents, mode: int
) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    volume.chmod(mode)
    url = (tmp_path / "tree").as_uri()
    assert "`--expect`" in require_error(cli("pull", url, "--cache", volume), 4)
    done = cli("pull", url, "--cache", volume, "--expect", contents.fingerprint)
    assert done.code == 0, done.err
    for path in volume.rglob("*"):  # as a cluster does for `fsGroup`, with each pod that mounts the volume
        path.chmod(path.stat().st_mode | (0o2770 if path.is_dir() else 0o660))
    assert cli("verify", "--cache", volume, "--expect", contents.fingerprint).code == 0
    assert cli("verify", "--cache", volume).code == 4


def test_pull_into_a_folder_of_a_volume_that_others_can_write_needs_nobody_to_vouch(
    cli: Cli, tmp_path: Path, contents: Contents
) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    volume.chmod(0o2777)
    done = cli("pull", (tmp_path / "tree").as_uri(), "--cache", volume / "kernels")
    assert done.code == 0, done.err
    assert cli("verify", "--cache", volume / "kernels").code == 0


def test_push_of_a_cache_that_lacks_something_is_refused_and_leaves_what_is_there(
    cli: Cli, tmp_path: Path, contents: Contents
) -> None:
    record_file(tmp_path / "origin", numbered_record(0)).unlink()
    done = cli("push", (tmp_path / "tree").as_uri(), "--cache", tmp_path / "origin")
    assert (done.code, "which is not in its list of contents" in done.err) == (4, True)
    assert _said(cli("pull", (tmp_path / "tree").as_uri(), "--cache", tmp_path / "cache", "--json"))["fingerprint"] == (
        contents.fingerprint
    )


def test_push_says_what_moved_in_one_sentence(cli: Cli, tmp_path: Path) -> None:
    publish_synthetic(tmp_path / "origin", 5)
    fingerprint = list_contents(Root(tmp_path / "origin")).fingerprint
    url = (tmp_path / "tree").as_uri()
    done = cli("push", url, "--cache", tmp_path / "origin")
    assert done.out.startswith("pushed 14 files, 5 kernels, 0.0 MB (14 new files, 0.0 MB) to `file:///")
    assert done.out.endswith(f"`: {fingerprint}\n")
    assert "pushing: " in done.err
    done = cli("pull", url, "--cache", tmp_path / "cache")
    assert done.out.startswith("pulled 14 files, 5 kernels, 0.0 MB (14 new files, 0.0 MB) from `file:///")
    assert done.out.endswith(f"`: {fingerprint}\n")
    assert "pulling: " in done.err


def test_pull_of_a_folder_and_of_an_archive_on_this_machine(cli: Cli, tmp_path: Path, contents: Contents) -> None:
    cli("pack", tmp_path / "a.tar.zst", "--cache", tmp_path / "origin")
    for number, place in enumerate([tmp_path / "origin", tmp_path / "a.tar.zst"]):
        cache = tmp_path / f"cache-{number}"
        assert _said(cli("pull", place, "--cache", cache, "--json"))["fingerprint"] == contents.fingerprint
        require_whole(cache, contents)


def test_pull_of_what_is_not_expected_fetches_the_list_only(cli: Cli, tmp_path: Path, contents: Contents) -> None:
    with serving(tmp_path / "tree") as told:
        done = cli("pull", told.url, "--cache", tmp_path / "cache", "--expect", "0" * 64)
        assert told.requests == ["/seal"]
    assert contents.fingerprint[:12] in require_error(done, 4)
    assert not (tmp_path / "cache").exists()
    require_error(cli("pull", told.url, "--expect", contents.fingerprint[:12], "--json"), 2)


@pytest.mark.parametrize("body", [b"<html>", b"", b"fa4-precompile/contents/1\nx\n"])
def test_pull_of_what_is_no_list_is_refused(cli: Cli, tmp_path: Path, body: bytes) -> None:
    publish_synthetic(tmp_path / "cache", 1)
    before = snapshot(tmp_path / "cache")
    with serving(tmp_path, on("/seal", saying(body))) as told:
        done = cli("pull", told.url, "--cache", tmp_path / "cache", "--json")
    assert "list of contents" in require_error(done, 4)
    assert snapshot(tmp_path / "cache") == before


def test_pull_into_a_cache_that_has_more_seals_nothing(cli: Cli, tmp_path: Path, contents: Contents) -> None:
    publish_synthetic(tmp_path / "cache", 5)
    said = _said(cli("pull", (tmp_path / "tree").as_uri(), "--cache", tmp_path / "cache", "--json"))
    assert said["new_files"] == 1  # the manifest
    assert not (tmp_path / "cache" / "seal").exists()


def test_pull_brings_the_signature(cli: Cli, tmp_path: Path, contents: Contents) -> None:
    (tmp_path / "tree" / "seal.dsse.json").write_bytes(b"signed")
    _said(cli("pull", (tmp_path / "tree").as_uri(), "--cache", tmp_path / "cache", "--json"))
    assert (tmp_path / "cache" / "seal.dsse.json").read_bytes() == b"signed"


def test_pull_while_another_cache_is_pushed_says_so(cli: Cli, tmp_path: Path, contents: Contents) -> None:
    publish_synthetic(tmp_path / "other", 5)
    other = cli("push", (tmp_path / "newer").as_uri(), "--cache", tmp_path / "other")
    assert other.code == 0

    def replace(handler: Handler, _number: int) -> bool:
        if "/manifests/" in handler.path:  # the same path there and here
            handler.server.told.folder = tmp_path / "newer"
        return False

    with serving(tmp_path / "tree", replace) as told:
        done = cli("pull", told.url, "--cache", tmp_path / "cache")
        assert done.code == 3
        assert "another cache was pushed" in done.err
        assert cli("pull", told.url, "--cache", tmp_path / "cache").code == 0
    require_whole(tmp_path / "cache", list_contents(Root(tmp_path / "other")))


def test_push_to_a_registry_names_what_was_pushed_by_its_digest(cli: Cli, tmp_path: Path) -> None:
    publish_synthetic(tmp_path / "origin", 5)
    with Registry() as registry:
        pushed = _said(cli("push", f"oci://{registry.registry}/kernels:new", "--cache", tmp_path / "origin", "--json"))
        assert "/kernels@sha256:" in pushed["place"]
        pulled = _said(cli("pull", pushed["place"], "--cache", tmp_path / "cache", "--json"))
        registry.shutdown()
    assert pulled["fingerprint"] == pushed["fingerprint"]
    require_whole(tmp_path / "cache", list_contents(Root(tmp_path / "origin")))


# Some builds of a cache


@pytest.fixture
def two_builds(tmp_path: Path) -> Path:
    """A cache with builds of two kernels for one target and of one for another, and a kernel of no build."""
    publisher = Publisher(Root(tmp_path / "two"))
    publisher.create()
    publisher.publish_toolchain(make_toolchain())
    publish_library(publisher, make_toolchain())
    records = [numbered_record(number) for number in range(4)]
    for number, record in enumerate(records):
        publisher.publish(record, synthetic_blob(number))
    publisher.publish_manifest(make_manifest(*records[:2]))
    hopper = make_target(name="h100", arch="sm_90a", sms=132)
    publisher.publish_manifest(make_manifest(records[2], target=hopper, spec="other", spec_digest="e" * 64))
    return tmp_path / "two"


@pytest.mark.parametrize(
    ("options", "kernels"),
    [
        (["--target", "b200"], 2),
        (["--arch", "sm_90a"], 1),
        (["--spec", "synthetic"], 2),
        (["--spec", "e" * 64], 1),
        ([], 4),
    ],
)
def test_pull_of_some_builds_takes_those_whole(
    cli: Cli, tmp_path: Path, two_builds: Path, options: list[str], kernels: int
) -> None:
    url = (tmp_path / "kernels.tar.zst" if "--arch" in options else tmp_path / "tree").as_uri()
    whole = _said(cli("push", url, "--cache", two_builds, "--json"))
    some = _said(cli("pull", url, "--cache", tmp_path / "cache", *options, "--json"))
    assert some["kernels"] == kernels
    assert some["place_fingerprint"] == whole["fingerprint"]
    assert (tmp_path / "cache" / "seal").exists() == (not options)
    require_whole(tmp_path / "cache", list_contents(Root(tmp_path / "cache")))
    assert list_contents(Root(tmp_path / "cache")).fingerprint == some["fingerprint"]
    # What is pushed of them is the same.
    part = _said(cli("push", (tmp_path / "part").as_uri(), "--cache", two_builds, *options, "--json"))
    assert part["fingerprint"] == some["fingerprint"]


def test_pull_of_a_build_that_is_not_there_names_those_that_are(cli: Cli, tmp_path: Path, two_builds: Path) -> None:
    cli("push", (tmp_path / "tree").as_uri(), "--cache", two_builds)
    done = cli("pull", (tmp_path / "tree").as_uri(), "--cache", tmp_path / "cache", "--arch", "sm_120a")
    said = require_error(done, 2)
    assert "no build of arch `sm_120a`" in said
    assert "other for h100 (sm_90a), synthetic for b200 (sm_100a)" in said
    assert not (tmp_path / "cache").exists()


# What can't be


@pytest.mark.parametrize(
    ("place", "code", "words"),
    [
        ("https://example.org/kernels", 2, "can only be read"),
        ("https://example.org/kernels.tar.zst", 2, "can only be read"),
        ("foo://kernels", 2, "scheme that is not known: `foo`"),
        ("kernels", 2, "is no URL"),
        ("gs://kernels/x", 3, "pip install gcsfs"),
    ],
)
def test_push_to_what_can_not_be_written_says_why(cli: Cli, synthetic: Path, place: str, code: int, words: str) -> None:
    assert words in require_error(cli("push", place, "--cache", synthetic, "--json"), code)


@pytest.mark.parametrize(
    ("place", "code", "words"),
    [
        ("nowhere", 2, "is no folder, no file and no URL"),
        ("foo://kernels", 2, "scheme that is not known: `foo`"),
        ("file:///nowhere/kernels", 3, "it has no `seal`"),
        ("file:///nowhere/kernels.tar.zst", 3, "no such file"),
        ("http://[half/kernels", 2, "is no URL"),
    ],
)
def test_pull_of_what_is_not_there_says_so(cli: Cli, tmp_path: Path, place: str, code: int, words: str) -> None:
    said = require_error(cli("pull", place, "--cache", tmp_path / "cache", "--json"), code)
    assert words in said
    assert not (tmp_path / "cache").exists()


def test_pull_says_nothing_of_the_credentials_in_a_url(cli: Cli, tmp_path: Path) -> None:
    with serving(tmp_path, on("", lambda handler: handler.answer(403, b"no"))) as told:
        url = told.url.replace("://", "://user:secret@") + "/kernels?token=secret"
        said = require_error(cli("pull", url, "--cache", tmp_path / "cache", "--json"), 3)
    assert f"`{told.url}/kernels/seal`: its server says 403" in said
    assert "secret" not in said


def test_pull_into_a_folder_of_something_else_fetches_nothing(cli: Cli, tmp_path: Path, contents: Contents) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    require_error(cli("pull", (tmp_path / "tree").as_uri(), "--cache", tmp_path / "mine", "--json"), 2)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_push_of_no_cache_writes_nothing(cli: Cli, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "tree", ignore_errors=True)
    require_error(cli("push", (tmp_path / "tree").as_uri(), "--cache", tmp_path / "nowhere", "--json"), 2)
    assert not (tmp_path / "tree").exists()

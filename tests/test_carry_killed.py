"""Pushes and pulls that are killed or cut off at any moment: none is whole that is not, and the next completes it."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from carried import HASTY, make_tree, require_whole, take
from fa4_precompile.cache.contents import Contents
from fa4_precompile.cache.listing import list_contents
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.verify import verify_root
from fa4_precompile.carry.remote import Remote
from fa4_precompile.carry.tree import TreeSource
from fa4_precompile.carry.urls import open_source
from fa4_precompile.errors import CarryError, RefusedError
from product import command, run
from support import publish_synthetic
from web_server import Fault, Handler, busy, cut, hang_up, on, serving, silently, wait_for

pytest.importorskip("aiohttp", reason="the extra `ship` is not installed")
pytest.importorskip("fsspec", reason="the extra `ship` is not installed")
pytest.importorskip("zstandard", reason="the extra `ship` is not installed")

pytestmark = pytest.mark.chance

KERNELS = 40


def _started(*arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _require_sound(cache: Path, contents: Contents) -> None:
    """Fail the test if anything in a cache is not as it should be, or if it is said to be whole and is not."""
    if not (cache / "format.json").exists():
        return
    assert not verify_root(Root(cache)).findings
    there = list_contents(Root(cache))
    assert there.entries.items() <= contents.entries.items()
    if (cache / "seal").exists() or list(cache.glob("manifests/*/*.json")):
        assert there == contents


def _killing(process: subprocess.Popen[bytes], moment: int) -> Fault:
    def kill(_handler: Handler, number: int) -> bool:
        if number == moment:
            process.kill()
        return False

    return kill


def test_pull_killed_at_any_moment_is_completed_by_the_next(tmp_path: Path) -> None:
    contents = make_tree(tmp_path, KERNELS)
    cache = tmp_path / "cache"
    for moment in random.sample(range(1, len(contents.entries) + 3), 3):
        with serving(tmp_path / "tree") as told:
            process = _started("pull", told.url, "--cache", cache)
            told.fault = _killing(process, moment)
            process.wait(300)
        _require_sound(cache, contents)
    with serving(tmp_path / "tree") as told:
        assert run("pull", told.url, "--cache", cache).code == 0
    require_whole(cache, contents)
    assert (cache / "seal").read_bytes() == contents.render()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_pull_interrupted_while_a_server_is_silent_ends_at_once(tmp_path: Path, number: signal.Signals) -> None:
    contents = make_tree(tmp_path, 3)
    with serving(tmp_path / "tree", on(".json", silently)) as told:
        process = _started("pull", told.url, "--cache", tmp_path / "cache")
        wait_for(lambda: any(path.endswith(".json") for path in told.requests))
        process.send_signal(number)
        assert process.wait(30) == 130  # not after the minute that silence may last
    _require_sound(tmp_path / "cache", contents)


@pytest.mark.parametrize("name", ["tree", "kernels.tar.zst"])
def test_push_killed_at_any_moment_is_completed_by_the_next(tmp_path: Path, name: str) -> None:
    publish_synthetic(tmp_path / "origin", KERNELS)
    contents = list_contents(Root(tmp_path / "origin"))
    shelf = tmp_path / "shelf"
    place = shelf / name
    for tried in range(3):
        moment = random.randrange(len(contents.entries) + 5 if name == "tree" else 3)
        process = _started("push", place.as_uri(), "--cache", tmp_path / "origin")
        while process.poll() is None and sum(1 for path in shelf.rglob("*") if path.is_file()) < moment:
            time.sleep(0.001)
        process.kill()
        process.wait(300)
        with suppress(CarryError):  # there is none yet
            take(open_source(place.as_uri()), tmp_path / f"cache-{tried}")
            require_whole(tmp_path / f"cache-{tried}", contents)
    assert run("push", place.as_uri(), "--cache", tmp_path / "origin").code == 0
    take(open_source(place.as_uri()), tmp_path / "cache")
    require_whole(tmp_path / "cache", contents)


def test_pull_from_a_server_that_fails_at_any_moment_is_completed_in_the_end(tmp_path: Path) -> None:
    contents = make_tree(tmp_path, KERNELS)
    moments = random.Random(seed := random.randrange(2**32))

    def fail(handler: Handler, _number: int) -> bool:
        fault = moments.choice([cut, busy, hang_up, *[None] * 15])  # three tries of a file fail in one of 200
        if fault is not None:
            fault(handler)
        return fault is not None

    cache = tmp_path / "cache"
    with serving(tmp_path / "tree", fail) as told:
        for _ in range(100):
            try:
                take(TreeSource(Remote(told.url, HASTY)), cache)
                break
            except CarryError:
                _require_sound(cache, contents)
        else:
            pytest.fail(f"it never completes, seed {seed}")
    require_whole(cache, contents)


def test_pull_of_a_pack_that_is_cut_at_any_byte_is_refused(tmp_path: Path) -> None:
    publish_synthetic(tmp_path / "origin", 3)
    contents = list_contents(Root(tmp_path / "origin"))
    path = tmp_path / "kernels.tar.zst"
    assert run("pack", path, "--cache", tmp_path / "origin").code == 0
    whole = path.read_bytes()
    with serving(tmp_path) as told:
        for length in random.sample(range(len(whole)), 20):
            path.write_bytes(whole[:length])
            with pytest.raises((RefusedError, CarryError)):
                take(open_source(f"{told.url}/{path.name}", patience=HASTY), tmp_path / "cache")
            assert not (tmp_path / "cache").exists()
        path.write_bytes(whole)
        take(open_source(f"{told.url}/{path.name}", patience=HASTY), tmp_path / "cache")
    require_whole(tmp_path / "cache", contents)

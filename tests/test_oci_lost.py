"""Pushes and pulls that are killed, or whose line is cut: what is there is whole, and the next one completes it."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import fa4_precompile.carry.wire
from artifacts import contents_of, make_cache, pull, push
from fa4_precompile.carry.patience import Patience
from fa4_precompile.errors import CarryError
from registries import Line, Registry, docker_registry
from support import start

pytest.importorskip("oras", reason="the extra `ship` is not installed")
pytest.importorskip("zstandard", reason="the extra `ship` is not installed")

_BYTES = 120_000
"""About what a push or a pull of the caches below moves."""


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two caches of which the second has all of the first, and more."""
    folder = tmp_path_factory.mktemp("caches")
    make_cache(folder / "first", range(10), size=4000)
    make_cache(folder / "second", range(20), size=4000)
    return folder


@pytest.fixture(params=["ours", "docker-registry"], scope="module")
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry of each kind."""
    if request.param == "ours":
        with Registry() as server:
            yield server.registry
            server.shutdown()
    else:
        with docker_registry(tmp_path_factory.mktemp("docker-registry")) as docker:
            yield docker


@pytest.fixture
def line(registry: str) -> Iterator[Line]:
    with closing(Line(registry)) as made:
        yield made


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fa4_precompile.carry.wire, "_PATIENCE", Patience(pauses_s=(0.0,) * 4))
    monkeypatch.setenv("HOME", str(tmp_path))


def _url(registry: str) -> str:
    return f"oci://{registry}/kernels-{random.getrandbits(64):x}:tag"


def _require_whole(url: str, caches: Path, folder: Path) -> None:
    """Fail unless a tag names all of one of the caches; or nothing, if nothing was there before."""
    pull(url, folder)
    assert contents_of(folder) in (contents_of(caches / "first"), contents_of(caches / "second"))


@pytest.mark.chance
def test_oci_push_over_a_line_that_is_cut_leaves_the_tag_and_is_completed(
    registry: str, line: Line, caches: Path, tmp_path: Path, effort: int
) -> None:
    for number in range(2 * effort):
        url = _url(registry)
        push(caches / "first", url)
        line.left = random.randrange(_BYTES)
        cut = url.replace(registry, line.registry)
        try:
            push(caches / "second", cut)
        except CarryError:
            _require_whole(url, caches, tmp_path / f"{number}")
        line.left = None
        push(caches / "second", cut)
        pull(url, tmp_path / f"{number} whole")
        assert contents_of(tmp_path / f"{number} whole") == contents_of(caches / "second")


@pytest.mark.chance
def test_oci_pull_over_a_line_that_is_cut_is_completed(
    registry: str, line: Line, caches: Path, tmp_path: Path, effort: int
) -> None:
    url = _url(registry)
    push(caches / "first", url)
    push(caches / "second", url)
    for number in range(2 * effort):
        line.left = random.randrange(_BYTES)
        cut = url.replace(registry, line.registry)
        folder = tmp_path / f"{number}"
        try:
            pull(cut, folder)
        except CarryError:
            if folder.exists():
                contents_of(folder)  # what is there is sound
        line.left = None
        pull(cut, folder)
        assert contents_of(folder) == contents_of(caches / "second")


def test_oci_line_that_is_cut_once_is_not_noticed(line: Line, caches: Path, tmp_path: Path) -> None:
    url = _url(line.registry)
    line.left_then_whole = 30_000
    push(caches / "second", url)
    line.left_then_whole = 50_000
    pull(url, tmp_path / "other")
    assert contents_of(tmp_path / "other") == contents_of(caches / "second")
    assert line.cuts == 2


@pytest.mark.chance
@pytest.mark.parametrize("what", [push, pull])
def test_oci_killed_at_any_moment_leaves_what_is_whole_and_is_completed(
    registry: str, caches: Path, tmp_path: Path, effort: int, what: object
) -> None:
    for number in range(2 * effort):
        url, folder = _url(registry), tmp_path / f"{number}"
        push(caches / "first", url)
        if what is pull:
            push(caches / "second", url)
            process = start(pull, url, folder)
        else:
            process = start(push, caches / "second", url)
        time.sleep(random.random() * 0.4)  # from before its first byte until it has ended
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        if what is push:
            _require_whole(url, caches, folder)
            push(caches / "second", url)
        pull(url, folder)
        assert contents_of(folder).entries.items() >= contents_of(caches / "second").entries.items()


def test_oci_manifest_is_sent_after_all_that_it_names(caches: Path) -> None:
    with Registry() as served:
        push(caches / "first", f"oci://{served.registry}/kernels:tag")
        manifest = json.loads(served.manifests["tag"][1])
        named = {manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])}
        sent = [path for method, path, _ in served.requests if method == "PUT"]
        assert len(sent) == len(named) + 1
        assert "/manifests/" in sent[-1]
        served.shutdown()

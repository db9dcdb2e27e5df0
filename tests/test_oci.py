"""A cache as an artifact in an OCI registry: pushed and pulled, and no more of it moved than is missing."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import fa4_precompile.carry.oci
from artifacts import contents_of, make_cache, pull, push
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.store import Root
from fa4_precompile.carry.oci import OciSource, open_oci, push_oci
from fa4_precompile.carry.receive import receive
from fa4_precompile.carry.root import RootSource
from fa4_precompile.errors import CarryError, RefusedError, UsageError
from registries import Line, Registry, docker_registry

pytest.importorskip("oras", reason="the extra `ship` is not installed")
pytest.importorskip("zstandard", reason="the extra `ship` is not installed")

_SAID = "vnd.fa4-precompile."
_ME_SECRET = "me:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"
"""The line of `htpasswd -B` for the user `me`, whose password is `secret`."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who has never logged in anywhere."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)


@pytest.fixture
def served() -> Iterator[Registry]:
    """A registry in this process."""
    with Registry() as server:
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Docker's registry."""
    with docker_registry(tmp_path_factory.mktemp("docker-registry")) as registry:
        yield registry


@pytest.fixture(params=["ours", "docker-registry"])
def line(request: pytest.FixtureRequest) -> Iterator[Line]:
    """A line to a registry of each kind."""
    is_ours = request.param == "ours"
    registry = request.getfixturevalue("served").registry if is_ours else request.getfixturevalue("docker")
    with closing(Line(registry)) as made:
        yield made


@pytest.fixture
def url(line: Line, tmp_path: Path) -> str:
    """The URL of an artifact that is not there."""
    return f"oci://{line.registry}/team/{tmp_path.name.lower().replace('[', '').replace(']', '')}:tag"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache of 20 kernels."""
    make_cache(tmp_path / "cache", range(20))
    return tmp_path / "cache"


@pytest.fixture
def ours(served: Registry) -> str:
    """The URL of an artifact that is not there, in the registry in this process."""
    return f"oci://{served.registry}/kernels:tag"


def _layers(served: Registry, tag: str = "tag") -> list[dict[str, Any]]:
    """Return the layers with files of what a tag names."""
    layers: list[dict[str, Any]] = json.loads(served.manifests[tag][1])["layers"]
    return [layer for layer in layers if layer["mediaType"].endswith("tar+zstd")]


def _opened(url: str) -> closing[OciSource]:
    return closing(open_oci(url))


# All of it


def test_oci_pull_of_what_was_pushed_brings_all_of_it(cache: Path, url: str, tmp_path: Path) -> None:
    pushed = push(cache, url)
    received = pull(url, tmp_path / "other")
    assert contents_of(tmp_path / "other") == contents_of(cache)
    assert pushed.files == received.came == 2 * 20 + 4
    assert pull(url, tmp_path / "other").came == 0


def test_oci_push_of_equal_contents_makes_one_digest(cache: Path, url: str, tmp_path: Path, line: Line) -> None:
    first = push(cache, url)
    before = line.up
    again = push(cache, url)
    assert (again.digest, again.made, again.bytes) == (first.digest, 0, 0)
    assert line.up - before < 5000, "nothing is sent but questions"
    make_cache(tmp_path / "equal", reversed(range(20)))
    assert push(tmp_path / "equal", url.replace("/team/", "/elsewhere/")).digest == first.digest


def test_oci_push_of_equal_contents_does_not_set_the_tag_again(cache: Path, served: Registry, ours: str) -> None:
    push(cache, ours)
    served.requests.clear()
    push(cache, ours)
    assert {method for method, _, _ in served.requests} == {"GET", "HEAD"}


def test_oci_push_to_an_empty_cache_of_nothing_is_pulled(served: Registry, ours: str, tmp_path: Path) -> None:
    Publisher(Root(tmp_path / "empty")).create()
    push(tmp_path / "empty", ours)
    assert pull(ours, tmp_path / "other").came == 0


def test_oci_signature_comes_with_the_list(cache: Path, url: str) -> None:
    with _opened(url) as source:
        push(cache, url)
        assert source.signature() == b""
    push(cache, url, b'{"payload": "..."}')
    with _opened(url) as source:
        assert source.signature() == b'{"payload": "..."}'


def test_oci_digest_names_what_the_tag_named(cache: Path, url: str, tmp_path: Path) -> None:
    pushed = push(cache, url)
    make_cache(cache, range(25))
    push(cache, url)
    with _opened(f"{url.removesuffix(':tag')}@{pushed.digest}") as source:
        assert (source.digest, len(list(source.contents().of_kind("records")))) == (pushed.digest, 20)
    with pytest.raises(UsageError, match="names a digest"):
        push(cache, f"{url}@{pushed.digest}")


def test_oci_what_is_not_there_is_told(url: str, tmp_path: Path) -> None:
    with pytest.raises(CarryError, match="is not there"):
        pull(url, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_oci_pull_from_a_registry_without_pieces_brings_all_of_it(
    cache: Path, served: Registry, ours: str, tmp_path: Path
) -> None:
    served.has_pieces = False
    push(cache, ours)
    served.sent = 0
    pull(ours, tmp_path / "other")
    assert contents_of(tmp_path / "other") == contents_of(cache)
    once = sum(map(len, served.blobs.values())) + len(served.manifests["tag"][1])
    assert served.sent <= once, "no layer comes twice"


# What is missing


def test_oci_push_sends_what_the_registry_does_not_have(cache: Path, url: str, line: Line) -> None:
    make_cache(cache, range(60), size=20_000)
    push(cache, url)
    make_cache(cache, range(65), size=20_000)
    line.up = line.down = 0
    pushed = push(cache, url)
    assert (pushed.kept, pushed.made) == (2, 1)
    assert pushed.files == 2 * 5 + 1, "five kernels, and the build's new manifest"
    assert 5 * 20_000 < line.up < 5 * 20_000 + len(contents_of(cache).render()) + 50_000
    assert line.down < 150_000, "lists and tables of layers"


def test_oci_pull_brings_what_is_missing(cache: Path, url: str, line: Line, tmp_path: Path) -> None:
    make_cache(cache, range(60), size=20_000)
    push(cache, url)
    make_cache(tmp_path / "other", range(55), size=20_000)
    line.up = line.down = 0
    received = pull(url, tmp_path / "other")
    assert contents_of(tmp_path / "other").entries.items() >= contents_of(cache).entries.items()
    assert received.came == 2 * 5 + 1
    assert 5 * 20_000 < line.down < 5 * 20_000 + len(contents_of(cache).render()) + 250_000


def test_oci_pull_after_pushes_of_parts_brings_all_of_it(cache: Path, url: str, tmp_path: Path) -> None:
    for count in (25, 26, 40):
        make_cache(cache, range(count))
        push(cache, url)
    pull(url, tmp_path / "other")
    assert contents_of(tmp_path / "other") == contents_of(cache)


def test_oci_push_leaves_out_layers_of_which_less_than_half_is_wanted(
    served: Registry, ours: str, tmp_path: Path
) -> None:
    make_cache(tmp_path / "a", range(10))
    push(tmp_path / "a", ours)
    make_cache(tmp_path / "b", range(6, 20))
    pushed = push(tmp_path / "b", ours)
    assert (pushed.kept, pushed.made) == (1, 1), "the toolchain's stays"
    pull(ours, tmp_path / "other")
    assert contents_of(tmp_path / "other") == contents_of(tmp_path / "b")
    make_cache(tmp_path / "c", range(9, 21))
    assert push(tmp_path / "c", ours).kept == 2, "more than half is"


def test_oci_push_keeps_so_many_layers_and_packs_the_small_ones_again(
    cache: Path, served: Registry, ours: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fa4_precompile.carry.oci, "_MOST_KEPT", 3)
    for count in range(20, 26):
        make_cache(cache, range(count))
        push(cache, ours)
    assert len(_layers(served)) <= 3 + 2
    pull(ours, tmp_path / "other")
    assert contents_of(tmp_path / "other") == contents_of(cache)


def test_oci_push_packs_again_what_is_in_a_layer_that_is_damaged(
    cache: Path, served: Registry, ours: str, tmp_path: Path
) -> None:
    push(cache, ours)
    make_cache(cache, range(21))
    layer = _layers(served)[1]
    served.blobs[layer["digest"]] = bytes(layer["size"])
    assert push(cache, ours).kept == 1, "the toolchain's"
    pull(ours, tmp_path / "other")
    assert contents_of(tmp_path / "other") == contents_of(cache)


def test_oci_push_to_a_tag_of_something_else_is_refused(cache: Path, served: Registry, ours: str) -> None:
    image = b'{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": []}'
    served.manifests["tag"] = "application/vnd.oci.image.manifest.v1+json", image
    with pytest.raises(RefusedError, match="the tag names something else") as caught:
        push(cache, ours)
    assert "another tag" in caught.value.hint
    assert served.manifests["tag"][1] == image
    assert served.blobs == {}


def test_oci_push_tells_how_far_it_is(cache: Path, ours: str) -> None:
    for count in (20, 22, 22):
        make_cache(cache, range(count))
        told: list[int] = []
        push_oci(RootSource(Root(cache)), contents_of(cache), b"", ours, told.append)
        assert sum(told) == contents_of(cache).size


# What is said of it


def test_oci_layers_are_of_one_arch_and_say_of_which(served: Registry, ours: str, tmp_path: Path) -> None:
    make_cache(tmp_path / "cache", range(5))
    make_cache(tmp_path / "cache", range(5), arch="sm_90a")
    push(tmp_path / "cache", ours)
    said = [layer["annotations"] for layer in _layers(served)]
    assert [one.get(f"{_SAID}arch") for one in said] == [None, "sm_100a", "sm_90a"]
    assert [one[f"{_SAID}kernels"] for one in said] == ["0", "5", "5"]
    whole = json.loads(served.manifests["tag"][1])["annotations"]
    assert whole[f"{_SAID}arch"] == "sm_100a,sm_90a"
    assert whole[f"{_SAID}sms"] == "148"
    assert whole[f"{_SAID}fingerprint"] == contents_of(tmp_path / "cache").fingerprint
    assert json.loads(whole[f"{_SAID}specs"]) == ["synthetic"]
    assert whole["org.opencontainers.image.description"].startswith("10 kernels of flash-attn-4")


def test_oci_pull_of_one_arch_leaves_the_layers_of_others(served: Registry, ours: str, tmp_path: Path) -> None:
    make_cache(tmp_path / "cache", range(5), size=200_000)
    make_cache(tmp_path / "cache", range(5), arch="sm_90a", size=200_000)
    push(tmp_path / "cache", ours)
    make_cache(tmp_path / "one", range(5), size=200_000)
    served.requests.clear()
    with _opened(ours) as source:
        receive(source, Publisher(Root(tmp_path / "other")), contents_of(tmp_path / "one"))
    assert contents_of(tmp_path / "other") == contents_of(tmp_path / "one")
    digest = _layers(served)[2]["digest"]
    assert not [path for _, path, _ in served.requests if digest in path]


def test_oci_manifest_says_nothing_of_time_or_place(cache: Path, served: Registry, ours: str) -> None:
    push(cache, ours)
    text = served.manifests["tag"][1].decode()
    assert "created" not in text
    assert str(cache) not in text
    assert served.registry not in text


# Who may


def test_oci_password_of_docker_login_opens_a_closed_registry(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with docker_registry(tmp_path / "closed", htpasswd=_ME_SECRET) as registry:
        url = f"oci://{registry}/kernels:tag"
        with pytest.raises(CarryError, match="a user and a password") as caught:
            push(cache, url)
        assert f"docker login {registry}" in caught.value.hint
        settings = tmp_path / "settings"
        settings.mkdir()
        monkeypatch.setenv("DOCKER_CONFIG", str(settings))
        for word in ("me:wrong", "me:secret"):
            auth = base64.b64encode(word.encode()).decode()
            (settings / "config.json").write_text(json.dumps({"auths": {registry: {"auth": auth}}}))
            if word == "me:wrong":
                with pytest.raises(CarryError, match="401"):
                    push(cache, url)
        push(cache, url)
        pull(url, tmp_path / "other")
    assert contents_of(tmp_path / "other") == contents_of(cache)


def test_oci_push_of_a_copy_uploads_nothing(cache: Path, served: Registry, ours: str, tmp_path: Path) -> None:
    push(cache, ours)
    shutil.copytree(cache, tmp_path / "copy")
    assert push(tmp_path / "copy", ours.replace(":tag", ":other")).bytes == 0
    assert served.manifests["other"] == served.manifests["tag"]

"""Registries that lie, break off or never end: each is refused or told, and the cache stays as it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from artifacts import contents_of, make_cache, pull, push
from fa4_precompile.cache import layout
from fa4_precompile.cache.contents import Contents
from fa4_precompile.carry import zstd
from fa4_precompile.carry.members import END, Member, constants, members
from fa4_precompile.carry.oci import open_oci
from fa4_precompile.errors import CarryError, MachineError, RecordError, RefusedError
from registries import Registry, endless
from support import deadline, snapshot

pytest.importorskip("oras", reason="the extra `ship` is not installed")
pytest.importorskip("zstandard", reason="the extra `ship` is not installed")

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("fa4_precompile.carry.patience.time.sleep", lambda seconds: None)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of five kernels, and one of another, side by side."""
    folder = tmp_path_factory.mktemp("made")
    make_cache(folder / "cache", range(5))
    make_cache(folder / "here", [100])
    return folder


@pytest.fixture
def served(made: Path) -> Iterator[Registry]:
    """A registry with an artifact of five kernels."""
    with Registry() as server:
        push(made / "cache", f"oci://{server.registry}/kernels:tag", b"{}")
        yield server
        server.shutdown()


@pytest.fixture
def here(made: Path, tmp_path: Path) -> Path:
    """A cache of one other kernel."""
    shutil.copytree(made / "here", tmp_path / "here")
    return tmp_path / "here"


def _stays(served: Registry, here: Path, *expected: type[Exception]) -> None:
    before, contents = snapshot(here), contents_of(here)
    with deadline(60), pytest.raises(expected or RefusedError):
        pull(f"oci://{served.registry}/kernels:tag", here)
    if contents_of(here) == contents:  # as a reader sees it; blobs that no record names may have come
        after = snapshot(here)
        assert before.keys() <= after.keys()
        assert all("blobs/" in name for name in after.keys() - before.keys())
    else:
        pytest.fail("a file has come that counts")


def _manifest(served: Registry) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(served.manifests["tag"][1])
    return found


def _tag(served: Registry, manifest: object, media_type: str = _MANIFEST) -> None:
    data = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    served.manifests["tag"] = media_type, data


def _change_layer(served: Registry, number: int, **fields: Any) -> None:
    manifest = _manifest(served)
    manifest["layers"][number] |= fields
    _tag(served, manifest)


def _put_layer(served: Registry, number: int, data: bytes) -> None:
    """Put other bytes in the place of a layer, and say their digest."""
    _change_layer(served, number, digest=served.put(data), size=len(data))


def _blob(served: Registry, number: int) -> str:
    digest: str = _manifest(served)["layers"][number]["digest"]
    return digest


# The manifest


@pytest.mark.parametrize(
    "change",
    [
        {"artifactType": "application/vnd.other"},
        {"artifactType": None},
        {"mediaType": "application/vnd.docker.distribution.manifest.v2+json"},
        {"schemaVersion": 1},
        {"schemaVersion": True},
        {"layers": []},
        {"layers": {}},
        {"layers": [3]},
        {"layers": None},
        {"config": None},
        {"config": {"mediaType": "application/vnd.other", "digest": "sha256:" + "0" * 64, "size": 1}},
        {"annotations": {"a": 3}},
        {"annotations": [3]},
    ],
    ids=str,
)
def test_oci_manifest_that_is_not_of_a_cache_is_refused(served: Registry, here: Path, change: dict[str, Any]) -> None:
    _tag(served, _manifest(served) | change)
    _stays(served, here)


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"{" * 100_000, b'{"schemaVersion": ' + b"9" * 5000 + b"}"])
def test_oci_manifest_that_is_no_json_is_refused(served: Registry, here: Path, data: bytes) -> None:
    _tag(served, data)
    _stays(served, here)


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "text/html",
        "",
    ],
)
def test_oci_manifest_list_instead_of_a_manifest_is_refused(served: Registry, here: Path, media_type: str) -> None:
    _tag(served, _manifest(served), media_type)
    _stays(served, here)


def test_oci_manifest_that_is_huge_is_refused(served: Registry, here: Path) -> None:
    _tag(served, json.dumps(_manifest(served)).encode() + b" " * (4 << 20))
    _stays(served, here)


def test_oci_manifest_with_another_digest_than_asked_for_is_refused(served: Registry, here: Path) -> None:
    asked = "sha256:" + "0" * 64
    served.manifests[asked] = served.manifests["tag"]
    with pytest.raises(RefusedError, match="digest"):
        pull(f"oci://{served.registry}/kernels@{asked}", here)


def test_oci_manifest_with_another_digest_than_its_header_says_is_refused(served: Registry, here: Path) -> None:
    def twist(handler: Any) -> bool:
        if "/manifests/" not in handler.path:
            return False
        data = served.manifests["tag"][1]
        handler.answer(200, data, Content_Type=_MANIFEST, Docker_Content_Digest="sha256:" + "0" * 64)
        return True

    served.twist = twist
    _stays(served, here)


# Layers, as the manifest has them


@pytest.mark.parametrize("number", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "change",
    [
        {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"},
        {"mediaType": "application/vnd.fa4-precompile.config.v1+json"},
        {"digest": "sha512:" + "0" * 128},
        {"digest": "sha256:../../secret"},
        {"digest": None},
        {"size": -1},
        {"size": "10"},
        {"size": 1 << 62},
        {"annotations": {"a": []}},
    ],
    ids=str,
)
def test_oci_layer_that_can_be_none_is_refused(
    served: Registry, here: Path, number: int, change: dict[str, Any]
) -> None:
    _change_layer(served, number, **change)
    _stays(served, here)


def test_oci_layer_with_many_more_is_refused(served: Registry, here: Path) -> None:
    manifest = _manifest(served)
    manifest["layers"] += [manifest["layers"][-1]] * 2000
    _tag(served, manifest)
    _stays(served, here)


def test_oci_signature_that_comes_twice_is_refused(served: Registry, here: Path) -> None:
    manifest = _manifest(served)
    manifest["layers"].append(manifest["layers"][1])
    _tag(served, manifest)
    _stays(served, here)


def test_oci_layer_that_the_registry_does_not_have_is_told(served: Registry, here: Path) -> None:
    del served.blobs[_blob(served, 3)]
    _stays(served, here, CarryError)


# What layers hold


def test_oci_list_with_other_bytes_is_refused(served: Registry, here: Path) -> None:
    digest = _blob(served, 0)
    served.blobs[digest] = served.blobs[digest].replace(b"records", b"recordz")
    _stays(served, here)


def test_oci_list_that_is_none_is_damaged(served: Registry, here: Path) -> None:
    _put_layer(served, 0, b"no list")
    _stays(served, here, RecordError)


@pytest.mark.parametrize("size", [1, 10_000_000])
def test_oci_list_of_another_size_is_refused(served: Registry, here: Path, size: int) -> None:
    _change_layer(served, 0, size=size)
    _stays(served, here)


def test_oci_list_that_names_a_file_of_no_layer_is_refused(served: Registry, here: Path, tmp_path: Path) -> None:
    make_cache(tmp_path / "more", range(6))
    _put_layer(served, 0, contents_of(tmp_path / "more").render())
    _stays(served, here)


def test_oci_signature_with_other_bytes_is_refused(served: Registry) -> None:
    served.blobs[_blob(served, 1)] = b"[]"
    with pytest.raises(RefusedError, match="other bytes"):
        open_oci(f"oci://{served.registry}/kernels:tag").signature()


def test_oci_layer_whose_list_lies_of_its_files_is_refused(served: Registry, here: Path, made: Path) -> None:
    _put_layer(served, 3, _lying_pack(contents_of(made / "cache")))
    _stays(served, here)


def _lying_pack(contents: Contents) -> bytes:
    """Return a pack whose list has the right digests, and whose files are zeros of the right size."""
    files = [Member.of(layout.SEAL, len(contents.render())).render(contents.render())]
    files += [Member.of(path, len(data)).render(data) for path, data in constants()]
    files += [member.render(bytes(entry.size)) for entry, member in members(contents)]
    frames = [(zstd.compressed(file), len(file)) for file in [*files, END]]
    table = zstd.render_table((len(frame), size) for frame, size in frames)
    return b"".join([*(frame for frame, _ in frames), table])


@pytest.mark.parametrize("at", [0, 100, -100, -1])
def test_oci_layer_with_a_flipped_byte_is_refused(served: Registry, here: Path, at: int) -> None:
    digest = _blob(served, 3)
    data = bytearray(served.blobs[digest])
    data[at] ^= 1
    served.blobs[digest] = bytes(data)
    _stays(served, here)


@pytest.mark.parametrize("data", [b"", b"x", b"x" * 100_000])
def test_oci_layer_that_is_no_pack_is_refused(served: Registry, here: Path, data: bytes) -> None:
    _put_layer(served, 3, data)
    _stays(served, here)


# How it comes


def _for_blobs(served: Registry, digests: set[str], answer: Callable[[Any, bytes], None]) -> None:
    """Let a registry answer so who asks for one of some blobs."""

    def twist(handler: Any) -> bool:
        digest = handler.path.rpartition("/")[2]
        if handler.command != "GET" or digest not in digests:
            return False
        answer(handler, served.blobs[digest])
        return True

    served.twist = twist


def _whole(handler: Any, data: bytes) -> bytes:
    """Return what was asked for."""
    first, _, last = handler.headers.get("Range", "bytes=-").removeprefix("bytes=").partition("-")
    return data[int(first) : int(last) + 1] if first else data


def _cut(handler: Any, data: bytes) -> None:
    data = _whole(handler, data)
    first = handler.headers.get("Range", "").removeprefix("bytes=")
    status = 206 if first else 200
    handler.answer(status, data[: len(data) // 2], Content_Length=str(len(data)), Content_Range=f"bytes {first}/9")
    handler.close_connection = True


def _never_ends(handler: Any, data: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(1 << 40))
    handler.end_headers()
    handler.close_connection = True
    endless(handler)


def _other_piece(handler: Any, data: bytes) -> None:
    asked = "Range" in handler.headers
    handler.answer(206 if asked else 200, _whole(handler, data), Content_Range="bytes 7-9/10")


def _no_range(handler: Any, data: bytes) -> None:
    asked = "Range" in handler.headers
    handler.answer(206 if asked else 200, _whole(handler, data))


def _to_a_file(handler: Any, data: bytes) -> None:
    handler.answer(307, Location="file:///etc/passwd")


def _nothing(handler: Any, data: bytes) -> None:
    handler.answer(200)


def _page(handler: Any, data: bytes) -> None:
    handler.answer(200, b"<html>please log in</html>")


def _no_more(handler: Any, data: bytes) -> None:
    handler.answer(416)


_ANSWERS = [_cut, _never_ends, _to_a_file, _nothing, _page, _no_more]


@pytest.mark.parametrize("answer", _ANSWERS)
def test_oci_list_that_comes_wrong_is_refused_or_told(
    served: Registry, here: Path, answer: Callable[[Any, bytes], None]
) -> None:
    _for_blobs(served, {_blob(served, 0)}, answer)
    _stays(served, here, RefusedError, CarryError)


@pytest.mark.parametrize("answer", [*_ANSWERS, _other_piece, _no_range])
def test_oci_layer_that_comes_wrong_is_refused_or_told(
    served: Registry, here: Path, answer: Callable[[Any, bytes], None]
) -> None:
    _for_blobs(served, {_blob(served, 2), _blob(served, 3)}, answer)
    _stays(served, here, RefusedError, CarryError)


def test_oci_disk_that_is_full_of_a_layer_is_told(
    served: Registry, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.has_pieces = False
    spooled = "fa4_precompile.carry.registry.tempfile.SpooledTemporaryFile"
    monkeypatch.setattr(spooled, lambda size: open("/dev/full", "r+b", 0))
    _stays(served, here, MachineError)


def test_oci_push_to_a_registry_that_keeps_another_manifest_is_refused(served: Registry, tmp_path: Path) -> None:
    def twist(handler: Any) -> bool:
        if handler.command != "PUT" or "/manifests/" not in handler.path:
            return False
        handler.body()
        handler.answer(201, Docker_Content_Digest="sha256:" + "0" * 64)
        return True

    served.twist = twist
    make_cache(tmp_path / "cache", range(6))
    with pytest.raises(RefusedError, match="another manifest"):
        push(tmp_path / "cache", f"oci://{served.registry}/kernels:tag")

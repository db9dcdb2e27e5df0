"""A tree on a web server that is slow, busy, broken or hostile: what is lost is tried again, what is wrong refused."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from carried import HASTY, IMPATIENT, make_tree, require_whole, take
from fa4_precompile.cache.contents import Contents
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.store import Root
from fa4_precompile.carry.receive import receive
from fa4_precompile.carry.remote import Remote
from fa4_precompile.carry.remote_file import RemoteFile
from fa4_precompile.carry.tree import TreeSource
from fa4_precompile.errors import CarryError, Fa4PrecompileError, MachineError, RecordError, RefusedError, UsageError
from support import deadline, snapshot
from web_server import Handler, busy, cut, dripping, on, redirecting, saying, serving, silently

pytest.importorskip("aiohttp", reason="the extra `ship` is not installed")
pytest.importorskip("fsspec", reason="the extra `ship` is not installed")

GOOD = b"fa4-precompile/contents/1\n" + b"0" * 64 + b" 7 blobs/sha256/00/" + b"0" * 64 + b"\n"


def _tree(url: str) -> TreeSource:
    return TreeSource(Remote(url, HASTY))


@pytest.fixture
def contents(tmp_path: Path) -> Contents:
    """What is in `tmp_path / "tree"`."""
    return make_tree(tmp_path)


def test_tree_on_a_web_server_is_received_whole(tmp_path: Path, contents: Contents) -> None:
    with serving(tmp_path / "tree") as told:
        moved = take(_tree(told.url), tmp_path / "cache")
    require_whole(tmp_path / "cache", contents)
    assert moved.came == len(contents.entries)


def test_tree_below_a_path_with_a_query_keeps_the_query_and_says_it_to_nobody(
    tmp_path: Path, contents: Contents
) -> None:
    with serving(tmp_path) as told:
        source = _tree(f"{told.url}/tree/?signature=secret")
        take(source, tmp_path / "cache")
        assert all(path.endswith("?signature=secret") for path in told.requests)
    assert source.name == f"{told.url}/tree/"
    assert Remote("https://user:secret@example.org/a").name == "https://example.org/a"


@pytest.mark.parametrize("fault", [busy, cut], ids=["busy", "cut"])
@pytest.mark.parametrize("end", ["/seal", ".json", ""], ids=["seal", "record", "any"])
def test_web_that_fails_once_is_asked_again(
    tmp_path: Path, contents: Contents, fault: Callable[[Handler], None], end: str
) -> None:
    with serving(tmp_path / "tree", on(end, fault, times=1)) as told:
        take(_tree(told.url), tmp_path / "cache")
    require_whole(tmp_path / "cache", contents)


@pytest.mark.parametrize("fault", [busy, cut])
def test_web_that_always_fails_is_given_up_and_what_came_is_kept(
    tmp_path: Path, contents: Contents, fault: Callable[[Handler], None]
) -> None:
    with serving(tmp_path / "tree", on(".json", fault)) as told, deadline(60), pytest.raises(CarryError) as caught:
        take(_tree(told.url), tmp_path / "cache")
    assert "3 tries" in str(caught.value)
    blobs = {entry.path for entry in contents.of_kind("blobs")}
    assert {str(path.relative_to(tmp_path / "cache")) for path in (tmp_path / "cache").glob("blobs/*/*/*")} == blobs
    with serving(tmp_path / "tree") as told:
        moved = take(_tree(told.url), tmp_path / "cache")
    assert moved.came == len(contents.entries) - len(blobs)
    require_whole(tmp_path / "cache", contents)


@pytest.mark.parametrize("fault", [silently, dripping])
def test_web_that_is_too_slow_is_given_up(tmp_path: Path, contents: Contents, fault: Callable[[Handler], None]) -> None:
    with serving(tmp_path / "tree", on("", fault)) as told, deadline(60):
        with pytest.raises(CarryError, match=r"gives up after 3 tries: its server is silent, or too slow"):
            TreeSource(Remote(told.url, IMPATIENT)).contents()
        with pytest.raises(CarryError, match=r"gives up after 3 tries: its server is silent, or too slow"):
            TreeSource(Remote(told.url, IMPATIENT)).signature()


def test_web_that_is_not_there_is_given_up_after_some_tries(tmp_path: Path) -> None:
    with serving(tmp_path) as told:
        url = told.url
    with pytest.raises(CarryError, match=r"gives up after 3 tries: the connection fails"):
        _tree(url).contents()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_web_that_says_no_is_not_asked_again(tmp_path: Path, status: int) -> None:
    with serving(tmp_path, on("", lambda handler: handler.answer(status, b"no"))) as told:
        with pytest.raises(CarryError):
            _tree(told.url).contents()
        assert len(told.requests) == 1


_Hostile = tuple[str, Callable[[Handler], None]]


def _longer(handler: Handler) -> None:
    handler.answer(200, (handler.wanted() or b"") + b"and more")


def _shorter(handler: Handler) -> None:
    handler.answer(200, (handler.wanted() or b"")[:-1])


def _flipped(handler: Handler) -> None:
    data = handler.wanted() or b""
    handler.answer(200, data[:-1] + bytes([data[-1] ^ 1]))


def _another(handler: Handler) -> None:
    """Answer with another blob of the same size, and with what is right where there is none."""
    folder = handler.server.told.folder
    mine = handler.wanted() or b""
    others = [path.read_bytes() for path in folder.glob("blobs/*/*/*")]
    handler.answer(200, next((data for data in others if len(data) == len(mine) and data != mine), b"none"))


def _endless(handler: Handler) -> None:
    handler.endlessly(b"." * 65536)


BOMB = gzip.compress(bytes(64 << 20))


def _bomb(handler: Handler) -> None:
    handler.answer(200, BOMB, {"Content-Encoding": "gzip"})


HOSTILE: dict[str, _Hostile] = {
    "blob is longer": ("", _longer),
    "blob is shorter": ("", _shorter),
    "blob has a wrong bit": ("", _flipped),
    "blob is another": ("", _another),
    "blob has no end": ("", _endless),
    "blob unpacks to gigabytes": ("", _bomb),
    "blob is at file:": ("", redirecting("file:///etc/passwd")),
    "blob is at ftp:": ("", redirecting("ftp://127.0.0.1/blob")),
    "blob is ever elsewhere": ("", redirecting("/blobs/elsewhere")),
    "seal is no list": ("seal", saying(b"<html>welcome</html>")),
    "seal leads out": ("seal", saying(GOOD.replace(b"blobs/sha256", b"../sha256"))),
    "seal has no end": ("seal", _endless),
    "seal is at file:": ("seal", redirecting("file:///etc/passwd")),
    "seal lists what is huge": ("seal", saying(GOOD.replace(b" 7 ", b" 99999999999 "))),
    "seal lists what is not there": ("seal", saying(GOOD)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_web_that_is_hostile_is_refused_and_changes_nothing(tmp_path: Path, contents: Contents, name: str) -> None:
    where, do = HOSTILE[name]
    Publisher(Root(tmp_path / "cache")).create()
    before = snapshot(tmp_path / "cache")

    def fault(handler: Handler, _number: int) -> bool:
        is_meant = handler.path.endswith("/seal") if where == "seal" else "/blobs/" in handler.path
        if is_meant:
            do(handler)
        return is_meant

    with serving(tmp_path / "tree", fault) as told, deadline(60):
        with pytest.raises((RefusedError, RecordError, CarryError)) as caught:
            take(_tree(told.url), tmp_path / "cache")
        assert told.sent < 512 << 20
    assert snapshot(tmp_path / "cache") == before
    if name not in ("seal lists what is not there",):
        assert not isinstance(caught.value, CarryError)


def test_web_of_a_body_without_end_no_more_is_read_than_the_list_states(tmp_path: Path, contents: Contents) -> None:
    def fault(handler: Handler, _number: int) -> bool:
        is_meant = "/blobs/" in handler.path
        if is_meant:
            handler.endlessly(b"." * 1000)
        return is_meant

    with serving(tmp_path / "tree", fault) as told, deadline(60):
        with pytest.raises(RefusedError, match="does not have the bytes"):
            take(_tree(told.url), tmp_path / "cache")
        blobs = len(list(contents.of_kind("blobs")))
        assert told.sent < (blobs + 1) * (8 << 20)  # what the system's buffers hold of each


# Pieces of a file


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """A file of which pieces are wanted."""
    path = tmp_path / "big"
    path.write_bytes(bytes(range(256)) * 4096)
    return path


def _file(url: str) -> RemoteFile:
    return RemoteFile(Remote(url, HASTY))


def test_file_on_the_web_is_read_in_pieces(tmp_path: Path, big: Path) -> None:
    with serving(tmp_path) as told:
        file = _file(f"{told.url}/big")
        assert file.size() == 1 << 20
        assert file.read(255, 3) == b"\xff\x00\x01"
        assert file.read((1 << 20) - 1, 1) == b"\xff"
        assert file.read(5, 0) == b""
        assert told.sent == 1 + 3 + 1


def test_file_on_a_server_that_ignores_ranges_is_not_downloaded(tmp_path: Path, big: Path) -> None:
    big.write_bytes(bytes(256 << 20))
    with serving(tmp_path, on("", lambda handler: handler.endlessly(b"." * 65536))) as told:
        with pytest.raises(CarryError, match="knows no parts of a file") as caught:
            _file(f"{told.url}/big").size()
        assert "download the file" in caught.value.hint
        with pytest.raises(CarryError, match="knows no parts of a file"):
            _file(f"{told.url}/big").read(1 << 20, 10)
        assert told.sent < 32 << 20


def _part(start: int, body: bytes, total: int) -> Callable[[Handler], None]:
    stated = f"bytes {start}-{start + len(body) - 1}/{total}"
    return lambda handler: handler.answer(206, body, {"Content-Range": stated})


@pytest.mark.parametrize(
    ("do", "error", "words"),
    [
        (_part(4, b"1234", 1 << 20), RefusedError, "another part"),
        (_part(8, b"123", 1 << 20), CarryError, "shorter"),
        (_part(8, b"1234", 1 << 21), CarryError, "another file was put there"),
        (lambda handler: handler.answer(206, b"1234"), RefusedError, "another part"),
        (lambda handler: handler.answer(416, b""), CarryError, "416"),
        (lambda handler: handler.answer(404, b""), CarryError, "no such file"),
        (redirecting("file:///etc/passwd"), RefusedError, "not on the web"),
    ],
    ids=["other start", "shorter", "other file", "no range", "too far", "gone", "redirect"],
)
def test_file_on_the_web_that_answers_with_something_else_is_refused(
    tmp_path: Path, big: Path, do: Callable[[Handler], None], error: type[Fa4PrecompileError], words: str
) -> None:
    with serving(tmp_path) as told:
        file = _file(f"{told.url}/big")
        assert file.size() == 1 << 20
        told.fault = on("", do)
        with pytest.raises(error, match=words):
            file.read(8, 4)


def test_file_on_the_web_whose_part_has_no_end_is_read_as_far_as_asked(tmp_path: Path, big: Path) -> None:
    def longer(handler: Handler) -> None:
        handler.answer(206, b"1234" + bytes(1 << 20), {"Content-Range": f"bytes 8-11/{1 << 20}"})

    with serving(tmp_path) as told:
        file = _file(f"{told.url}/big")
        assert file.size() == 1 << 20
        told.fault = on("", longer)
        assert file.read(8, 4) == b"1234"


def test_web_can_only_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can only be read"):
        Remote("https://example.org/x").require_writable()


def test_url_of_a_scheme_without_its_package_names_what_to_install() -> None:
    with pytest.raises(MachineError) as caught:
        Remote("gs://bucket/x")
    assert "pip install gcsfs" in caught.value.hint


@pytest.mark.parametrize("url", ["foo://x/y", "simplecache::http://x/y"])
def test_url_of_a_scheme_that_is_not_known_is_a_mistake(url: str) -> None:
    from fa4_precompile.carry.urls import open_source

    with pytest.raises(UsageError):
        open_source(url)


def test_tree_takes_only_what_is_wanted(tmp_path: Path, contents: Contents) -> None:
    toolchains = contents.only(lambda entry: entry.kind == "toolchains")
    with serving(tmp_path / "tree") as told:
        source = _tree(told.url)
        moved = receive(source, Publisher(Root(tmp_path / "cache")), toolchains)
        assert len(told.requests) == moved.came == 1

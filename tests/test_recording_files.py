"""Reading recordings: what is whole is used, and what is not is said by file and line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fa4_precompile.cache.key import KeyText, canonical_json, encode_key
from fa4_precompile.cache.recording import End, Line, Lookup, Process, Served, parse_line, render_line
from fa4_precompile.errors import RecordError, UsageError
from fa4_precompile.precompile.recorded.reading import Recordings, read_recordings
from support import make_target

_PROCESS = Process("node-1", 4321, "0", "2026-11-29T12:00:00Z")
_SERVED = Served("flash_attn.cute", "flash-attn-4", "4.0.0b36", "a" * 64, make_target())
_WORDS = st.text(st.characters(codec="utf-8"), max_size=20)
_AXES = st.none() | st.dictionaries(
    _WORDS, st.booleans() | st.integers(0, 2**40) | _WORDS | st.lists(st.integers(0, 9))
)


def _lookup(number: int) -> Lookup:
    axes = {"pass": "fwd", "dtype": "bf16", "head_dim": number}
    return Lookup("flash_attn.cute", "fwd", encode_key((number,)), {}, axes, [], "hit")


def _lines(*lines: Line) -> list[bytes]:
    return [render_line(line) for line in lines]


def _whole(lookups: int = 3) -> list[bytes]:
    return _lines(_PROCESS, _SERVED, *map(_lookup, range(lookups)), End(lookups))


def _read(folder: Path, data: bytes, name: str = "a.jsonl") -> Recordings:
    (folder / name).write_bytes(data)
    return read_recordings([folder])


def _numbers(found: Recordings) -> list[list[object]]:
    return [[lookup.axes and lookup.axes["head_dim"] for lookup in one.lookups] for one in found.processes]


@given(key=_WORDS, slot=_WORDS, axes=_AXES, unsaid=st.lists(_WORDS), facts=st.dictionaries(_WORDS, st.integers(0, 9)))
def test_line_is_read_as_it_was_written(
    key: str, slot: str, axes: dict[str, object] | None, unsaid: list[str], facts: dict[str, int]
) -> None:
    line = Lookup("flash_attn.cute", slot, KeyText(key), facts, axes, unsaid, "hit")
    data = render_line(line)
    assert data.count(b"\n") == 1
    assert parse_line("it", data[:-1]) == line


@pytest.mark.parametrize("line", [_PROCESS, _SERVED, _lookup(64), End(3)], ids=lambda line: type(line).__name__)
def test_line_of_each_kind_is_read_and_each_of_its_bytes_counts(line: Line) -> None:
    data = render_line(line)[:-1]
    assert parse_line("it", data) == line
    for place in range(len(data)):
        damaged = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises(RecordError):
            parse_line("it", damaged)


def test_whole_file_is_complete(tmp_path: Path) -> None:
    found = _read(tmp_path, b"".join(_whole()))
    assert (found.findings, _numbers(found), found.incomplete) == ([], [[0, 1, 2]], [])


def test_lines_in_another_order_are_as_good(tmp_path: Path) -> None:
    first, served, *rest = _whole()
    found = _read(tmp_path, b"".join([rest[0], served, rest[1], first, *rest[2:]]))
    assert (found.findings, _numbers(found), found.incomplete) == ([], [[0, 1, 2]], [])


def test_file_without_an_end_is_incomplete_and_used(tmp_path: Path) -> None:
    found = _read(tmp_path, b"".join(_whole()[:-1]))
    assert (found.findings, _numbers(found)) == ([], [[0, 1, 2]])
    assert found.incomplete == found.processes


def test_file_that_lacks_a_line_is_incomplete(tmp_path: Path) -> None:
    lines = _whole()
    del lines[3]
    found = _read(tmp_path, b"".join(lines))
    assert _numbers(found) == [[0, 2]]
    assert found.incomplete == found.processes


def test_torn_line_is_named_and_the_rest_used(tmp_path: Path) -> None:
    lines = _whole()
    whole = b"".join(lines[:4])
    for length in range(1, len(lines[4]) - 1, 17):
        found = _read(tmp_path, whole + lines[4][:length])
        assert found.findings == [
            f"`{tmp_path / 'a.jsonl'}:5`: is torn: the process ended while it wrote this line; it is left out"
        ]
        assert _numbers(found) == [[0, 1]]
        assert found.incomplete == found.processes


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"\xff\xfe", "is damaged: no JSON"),
        (b"[" * 100_000, "is damaged: no JSON"),
        (b"3", "is damaged: no JSON object"),
        (b"{}", "is damaged: its content does not have the digest that it states"),
        (render_line(_lookup(9))[:-1].replace(b"fwd", b"bwd"), "is damaged: its content does not have the digest"),
    ],
    ids=["bytes", "depth", "number", "nothing", "changed"],
)
def test_damaged_line_is_named_and_the_rest_used(tmp_path: Path, line: bytes, reason: str) -> None:
    lines = _whole()
    found = _read(tmp_path, b"".join([*lines[:3], line + b"\n", *lines[3:]]))
    (finding,) = found.findings
    assert finding.startswith(f"`{tmp_path / 'a.jsonl'}:4`: {reason}")
    assert finding.endswith("the line is left out")
    assert _numbers(found) == [[0, 1, 2]]


def test_many_damaged_lines_are_counted(tmp_path: Path) -> None:
    found = _read(tmp_path, b"".join([*_whole()[:-1], *[b"what\n"] * 10]))
    assert len(found.findings) == 4
    assert found.findings[-1] == f"`{tmp_path / 'a.jsonl'}`: and 7 more such lines"


@pytest.mark.parametrize(
    "data", [b"", b"\n", b'{"resolved": 3}\n', b"a report of something else\n", b"no end"], ids=str
)
def test_foreign_file_is_named_and_left_out(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "b.jsonl").write_bytes(b"".join(_whole()))
    found = _read(tmp_path, data)
    (finding,) = found.findings
    assert finding.startswith(f"`{tmp_path / 'a.jsonl'}")
    assert finding.endswith("it is left out")
    assert _numbers(found) == [[0, 1, 2]]


def test_file_of_a_later_version_is_named_with_both(tmp_path: Path) -> None:
    content = {"kind": "process", "schema": "fa4-precompile/recording/2", "host": "x"}
    line = json.dumps({**content, "sha256": hashlib.sha256(canonical_json(content)).hexdigest()}).encode() + b"\n"
    found = _read(tmp_path, line + b"".join(_lines(_SERVED, _lookup(1))))
    assert "has schema 'fa4-precompile/recording/2'; this version reads 'fa4-precompile/rec" in found.findings[0]
    assert found.processes == []


def test_lookup_of_a_package_that_the_file_does_not_say_is_left_out(tmp_path: Path) -> None:
    first, _, *rest = _whole()
    found = _read(tmp_path, b"".join([first, *rest]))
    assert found.findings == [
        f"`{tmp_path / 'a.jsonl'}`: does not say what `flash_attn.cute` is; what it looked up there is left out"
    ]
    assert _numbers(found) == [[]]


def test_file_that_is_too_large_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fa4_precompile.precompile.recorded.reading.MOST_BYTES", 1000)
    assert "is larger than" in _read(tmp_path, b"".join(_whole())).findings[0]


def test_other_files_of_a_folder_are_nobodys_business(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "folder.jsonl").mkdir()
    assert _read(tmp_path, b"".join(_whole())).findings == []


def test_several_places_are_put_together_and_a_single_file_is_one(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.jsonl").write_bytes(b"".join(_whole()))
    assert len(read_recordings([tmp_path / "a", tmp_path / "b" / "x.jsonl"]).processes) == 2


@pytest.mark.parametrize("name", ["", "gone"])
def test_place_without_a_recording_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="has no recording") as caught:
        read_recordings([tmp_path / name])
    assert "run --record" in caught.value.hint

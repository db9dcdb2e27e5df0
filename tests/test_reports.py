"""Reports that are read again: what can't be used is said with its place, and the rest says who was served."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from reported import MISSED, make_line, write_lines

from fa4_precompile.errors import RecordError
from fa4_precompile.loader.line import Line
from fa4_precompile.loader.stats import Missed, Slow
from fa4_precompile.reports import read as reading
from fa4_precompile.reports.job import JobReport, names, ranges
from fa4_precompile.reports.read import Told, read
from support import deadline


def _job(*lines: Line, **options: Any) -> JobReport:
    return JobReport.of(Told(lines, []), **options)


# Lines


@pytest.mark.parametrize(
    "line",
    [
        make_line(3, 8, job="8123 restart 1"),
        make_line(None, host="hôte"),
        make_line(0, missed={"absent": 2}, misses=[MISSED], first_lookup_seconds=None, ended=False, on_miss="warn"),
        make_line(0, misses=[Missed("fwd", "key", "", None, "why", 3)], inexact={"dsl 1 there, 2 here": 4}, roots=[]),
    ],
    ids=["rank", "no rank", "missed", "no call"],
)
def test_line_that_is_read_is_the_one_that_was_written(line: Line) -> None:
    assert Line.parse("out.jsonl", json.dumps(line.render()).encode()) == line


_NAMES = sorted(make_line().render())


@pytest.mark.parametrize("name", _NAMES)
def test_line_without_a_field_or_with_another_in_its_place_is_refused_with_the_name_of_it(name: str) -> None:
    optional = ("rank", "local_rank", "world_size", "first_lookup_seconds")
    told = ("strict",)  # follows from another, and is for who reads the JSON
    odds: tuple[object, ...] = ([[]], {"a": []}, "\ud800", -1, 10**30, [{"a": 1}])
    for odd in odds:
        content = {**make_line().render(), name: odd}
        if name in told:
            Line.parse("out.jsonl", json.dumps(content).encode())
            continue
        with pytest.raises(RecordError):
            Line.parse("out.jsonl", json.dumps(content).encode())
    without = {key: value for key, value in make_line().render().items() if key != name}
    if name not in (*optional, *told):
        with pytest.raises(RecordError, match=name):
            Line.parse("out.jsonl", json.dumps(without).encode())


# Reading


def test_what_is_no_line_is_said_with_file_and_line_and_the_rest_is_used(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "out.jsonl", [make_line(0, 4)])
    whole = file.read_bytes()
    odd = [whole[:200], b"", b"\0" * 50, b"no JSON", b"[1, 2]", b'{"before": 1}', b"[" * 100_000, b"\xff\xfe"]
    file.write_bytes(whole + b"\n".join(odd) + b"\n" + json.dumps(make_line(1, 4).render()).encode())
    told = read([file])
    assert sorted(line.placement.rank or 0 for line in told.lines) == [0, 1]
    assert [fault.line for fault in told.faults] == list(range(2, 2 + len(odd)))
    assert {fault.file for fault in told.faults} == {str(file)}
    assert str(told.faults[0]).startswith(f"{file}:2: is no line of a report: ")
    assert "has no field" in told.faults[5].problem


def test_line_that_is_too_long_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_MOST_BYTES", 10_000)
    file = write_lines(tmp_path / "out.jsonl", [make_line(0)])
    with file.open("a") as report:
        report.write("x" * 35_000 + "\n")
    write_lines(file, [make_line(1)])
    told = read([file])
    assert (len(told.lines), [(fault.line, "longer" in fault.problem) for fault in told.faults]) == (2, [(2, True)])


def test_file_that_is_not_there_or_none_is_said_and_the_others_are_read(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    file = write_lines(tmp_path / "out.jsonl", [make_line(0)])
    paths = [tmp_path / "empty.jsonl", tmp_path / "folder", tmp_path / "pipe", tmp_path / "nowhere.jsonl", file]
    with deadline(60):
        told = read(paths)
    assert len(told.lines) == 1
    assert [(Path(fault.file).name, fault.line) for fault in told.faults] == [
        ("empty.jsonl", 0),
        ("folder", 0),
        ("pipe", 0),
        ("nowhere.jsonl", 0),
    ]


def test_process_that_is_told_twice_counts_once_as_it_was_last(tmp_path: Path) -> None:
    early, late = make_line(0, ended=False, time="2026-11-29T12:10:00.000000Z"), make_line(0)
    file = write_lines(tmp_path / "a.jsonl", [late, early])
    write_lines(tmp_path / "b.jsonl", [early])
    assert read([file, tmp_path, tmp_path / "b.jsonl"]).lines == [late]


# A job


def test_job_whose_ranks_were_all_served_has_no_findings() -> None:
    report = _job(*(make_line(rank, 4) for rank in range(4)))
    assert (report.findings(), report.expected, list(report.heard), report.missing) == ([], 4, [0, 1, 2, 3], [])
    assert report.render()["served"] is True
    assert report.total("saved_seconds") == pytest.approx(4 * 36.3)


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"missed": {"absent": 1}}, "1 of 4 processes missed a kernel: rank 2"),
        ({"compiled": 1}, "1 of 4 processes compiled a kernel: rank 2"),
        ({"refused": 1}, "1 of 4 processes asked for a compile that strict mode forbids: rank 2"),
        ({"ended": False}, "1 of 4 processes ended without saying so (killed, or still running): rank 2"),
    ],
    ids=["missed", "compiled", "refused", "killed"],
)
def test_rank_that_was_not_served_is_a_finding_that_names_it(changes: dict[str, Any], finding: str) -> None:
    lines = [make_line(rank, 4, **(changes if rank == 2 else {})) for rank in range(4)]
    assert _job(*lines).findings() == [finding]
    assert (_job(*lines, is_running=True).findings() == []) == ("ended" in changes)


def test_ranks_that_were_not_heard_from_are_those_that_the_launcher_or_the_user_says_there_are() -> None:
    lines = [make_line(rank, 8) for rank in (0, 1, 5)]
    assert _job(*lines).missing == [2, 3, 4, 6, 7]
    assert _job(*lines, ranks=6).missing == [2, 3, 4]
    assert _job(*lines).findings() == ["5 of 8 ranks are not heard from: 2-4, 6-7"]
    assert _job(*lines, ranks=4).findings()[-1] == "there are more than 4 ranks: 5"
    assert _job(*lines, ranks=4).missing == [2, 3]
    assert _job(make_line(0), make_line(1)).missing == []


def test_rank_that_has_looked_nothing_up_is_not_proved_to_be_served() -> None:
    worker = make_line(1, 2, process=7, first_lookup_seconds=None)  # which its rank has started
    assert _job(make_line(0, 2), make_line(1, 2), worker).findings() == []
    idle = make_line(1, 2, first_lookup_seconds=None)
    assert _job(make_line(0, 2), idle).findings() == ["1 of 2 ranks has looked no kernel up: 1"]
    assert _job(make_line(0, 2), idle, is_running=True).findings() == []
    alone = make_line(None, first_lookup_seconds=None)
    assert _job(alone).findings() == ["no process has looked a kernel up"]
    assert _job(alone, make_line(None, process=8)).findings() == []


def test_job_that_nobody_has_reported_of_is_a_finding() -> None:
    assert _job().findings() == ["no process has reported"]
    assert _job(ranks=2).findings() == ["no process has reported", "none of 2 ranks is heard from"]


def test_process_without_a_launcher_is_the_one_rank_of_its_job() -> None:
    assert _job(make_line(None), ranks=1).findings() == []
    assert _job(make_line(None), ranks=2).missing == [0, 1]


def test_job_is_that_which_was_started_last_and_the_others_are_counted() -> None:
    old = [make_line(rank, 2, job="7", missed={"absent": 1}, started="2026-11-28T12:00:00.000000Z") for rank in (0, 1)]
    new = [make_line(rank, 2, job="8", process=rank) for rank in (0, 1)]
    report = _job(*new, *old)
    assert (report.job, report.findings(), report.others) == ("8", [], {"7": 2})
    assert len(_job(*new, *old, job="7").missed) == 2
    assert _job(*new, *old, job="9").lines == []


def test_restart_of_a_job_is_a_job_of_its_own() -> None:
    killed = [make_line(rank, 2, job="7", ended=False) for rank in (0, 1)]
    again = [
        make_line(rank, 2, job="7 restart 1", process=rank, started="2026-11-29T13:00:00.000000Z") for rank in (0, 1)
    ]
    assert _job(*killed, *again).findings() == []


def test_misses_are_by_call_with_who_missed_it_those_of_most_first() -> None:
    rare = Missed("fwd", "key", "", None, "holds a Tensor", 5)
    lines = [make_line(rank, 3, missed={"absent": 1}, misses=[MISSED, rare][: rank + 1]) for rank in range(3)]
    first, second = _job(*lines).misses
    assert (first.name, names(first.who), first.missed.count) == (
        "bwd of pass=bwd dtype=bf16 head_dim=96 causal",
        "ranks 0-2",
        3,
    )
    assert (second.name, names(second.who), second.missed.count) == (
        "fwd of a call whose axes can't be told",
        "ranks 1-2",
        10,
    )


def test_slowest_loads_are_those_of_all_processes() -> None:
    lines = [make_line(rank, slowest=[Slow(f"{rank:064x}", "fwd", rank / 1000)]) for rank in range(20)]
    assert [line.placement.rank for line, _ in _job(*lines).slowest] == list(range(19, 9, -1))


def test_ranges_of_numbers() -> None:
    assert ranges([]) == ""
    assert ranges([3]) == "3"
    assert ranges([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"
    assert ranges(range(0, 100, 2)) == "0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, and 38 more"


def test_names_of_processes_without_a_rank_are_their_numbers_and_hosts() -> None:
    assert names([make_line(None, process=7, host="h"), make_line(2)]) == "rank 2, process 7 on h"
    assert names([make_line(None, process=number) for number in range(9)]).endswith("and 5 more processes")

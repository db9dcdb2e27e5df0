"""Where a process writes its report, and which files somebody means who names one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import fa4_precompile
from fa4_precompile.errors import UsageError
from fa4_precompile.loader import ending
from fa4_precompile.loader.config import Config
from fa4_precompile.loader.ranks import Placement
from fa4_precompile.loader.report_files import file_of, files_of, fixed_folder, is_for_each, report_path
from support import start

_RANK_3 = Placement("node-1", 3, 1, 8)
_NO_RANK = Placement("node-1")


def test_report_is_a_shared_file_unless_its_name_says_whose_it_is(tmp_path: Path) -> None:
    assert not is_for_each(report_path(f"{tmp_path}/out.jsonl"))
    assert is_for_each(report_path(f"{tmp_path}/runs/"))
    assert is_for_each(report_path(f"{tmp_path}/{{rank}}.jsonl"))
    assert is_for_each(report_path(str(tmp_path)))


@pytest.mark.parametrize(
    ("name", "of_rank_3", "of_no_rank"),
    [
        ("runs/", "runs/node-1-3.jsonl", "runs/node-1-process-77.jsonl"),
        ("{rank}.jsonl", "3.jsonl", "process-77.jsonl"),
        ("{host}/{rank}.jsonl", "node-1/3.jsonl", "node-1/process-77.jsonl"),
        ("{host}.jsonl", "node-1-77.jsonl", "node-1-77.jsonl"),
        ("{rank}-{process}.jsonl", "3-77.jsonl", "process-77-77.jsonl"),
    ],
)
def test_pattern_gives_each_process_a_file(tmp_path: Path, name: str, of_rank_3: str, of_no_rank: str) -> None:
    pattern = report_path(f"{tmp_path}/{name}")
    assert file_of(pattern, _RANK_3, 77) == tmp_path / of_rank_3
    assert file_of(pattern, _NO_RANK, 77) == tmp_path / of_no_rank


@pytest.mark.parametrize("host", ["../../etc", "..", "", "a/b", "{process}"])
def test_host_of_any_name_stays_in_the_folder(tmp_path: Path, host: str) -> None:
    file = file_of(report_path(f"{tmp_path}/{{host}}/{{rank}}.jsonl"), Placement(host, 3), 77)
    assert file.resolve().parent.parent == tmp_path.resolve()
    assert "{" not in str(file)


@pytest.mark.parametrize("word", ["{job}", "{Rank}", "{hots}"])
def test_pattern_of_another_word_is_refused_but_a_brace_is_no_pattern(word: str) -> None:
    name = f"/runs/{word}.jsonl"
    if word.islower():
        with pytest.raises(UsageError, match="stands for nothing") as caught:
            Config.from_env({"FA4_PRECOMPILE_CACHE": "/a", "FA4_PRECOMPILE_REPORT": name})
        assert caught.value.hint == "allowed: {host}, {rank}, {process}"
    else:
        assert report_path(name) == Path(name)


@pytest.mark.parametrize("name", ["", "a\0b", "runs\0/"])
def test_report_that_can_have_no_such_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is no name that a report can have"):
        fa4_precompile.install("/a", report=name)


def test_variable_of_a_folder_is_read_by_another_process_as_the_same(tmp_path: Path) -> None:
    config = Config.from_env({"FA4_PRECOMPILE_CACHE": "/a", "FA4_PRECOMPILE_REPORT": f"{tmp_path}/runs/"})
    assert config.report_file == tmp_path / "runs" / "{host}-{rank}.jsonl"
    assert Config.from_env(config.render()) == config
    assert config.override(report=Path("/b/{rank}")).report_file == Path("/b/{rank}")


def test_folder_that_depends_on_no_process_is_found(tmp_path: Path) -> None:
    assert fixed_folder(tmp_path / "{host}" / "{rank}.jsonl") == tmp_path
    assert fixed_folder(tmp_path / "out.jsonl") == tmp_path
    assert fixed_folder(tmp_path) == tmp_path


def test_files_are_those_that_a_pattern_can_have_made(tmp_path: Path) -> None:
    names = ["a-1.jsonl", "b-2.jsonl", ".a-1.jsonl.tmp", "notes.txt"]
    for age, name in enumerate(names):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (age, age))
    expected = [tmp_path / "b-2.jsonl", tmp_path / "a-1.jsonl"]
    assert files_of(tmp_path) == expected
    assert files_of(tmp_path / "{host}-{rank}.jsonl") == expected
    assert files_of(tmp_path / "{host}-1.jsonl") == [tmp_path / "a-1.jsonl"]
    assert files_of(tmp_path / "not there") == [tmp_path / "not there"]


def test_folder_that_is_named_has_also_files_that_were_named_otherwise(tmp_path: Path) -> None:
    for name in ("3.jsonl", "node-1-4.jsonl"):
        (tmp_path / name).touch()
    assert {file.name for file in files_of(report_path(f"{tmp_path}/"))} == {"3.jsonl", "node-1-4.jsonl"}
    (tmp_path / "node-1").mkdir()
    (tmp_path / "node-1" / "node-1-4.jsonl").touch()
    pattern = report_path(f"{tmp_path}/{{host}}/")
    assert files_of(pattern) == [tmp_path / "node-1" / "node-1-4.jsonl"]


def test_folder_whose_name_has_what_a_shell_reads_as_a_pattern_is_just_that_folder(tmp_path: Path) -> None:
    for folder in ("run[1]*", "run1x"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "h-0.jsonl").touch()
    assert files_of(tmp_path / "run[1]*" / "{host}-{rank}.jsonl") == [tmp_path / "run[1]*" / "h-0.jsonl"]


# One rank is one process; what it starts has a file beside it


def _line(process: int, host: str = "node-1", ended: bool = False) -> str:
    return json.dumps({"host": host, "process": process, "ended": ended}) + "\n"


@pytest.mark.parametrize(
    ("content", "is_taken"),
    [
        (_line(os.getpid()), True),
        (_line(os.getpid(), ended=True), False),
        (_line(os.getpid(), host="node-2"), False),
        (_line(0), False),
        (_line(-1), False),
        ("", False),
        ("no JSON\n", False),
        ("[1]\n", False),
        ('{"process": "1", "host": "node-1", "ended": false}\n', False),
        ('{"process": 1e99, "host": "node-1", "ended": false}\n', False),
        (f'{{"process": {10**30}, "host": "node-1", "ended": false}}\n', False),
    ],
    ids=["runs", "ended", "elsewhere", "zero", "negative", "empty", "text", "list", "word", "float", "large"],
)
def test_file_of_a_rank_is_that_of_its_first_process_while_it_runs(
    tmp_path: Path, content: str, is_taken: bool
) -> None:
    (tmp_path / "3.jsonl").write_text(content)
    expected = "3-77.jsonl" if is_taken else "3.jsonl"
    assert file_of(tmp_path / "{rank}.jsonl", _RANK_3, 77) == tmp_path / expected


def test_file_of_a_rank_that_was_killed_is_taken_over(tmp_path: Path) -> None:
    gone = start(int)
    gone.join()
    (tmp_path / "3.jsonl").write_text(_line(gone.pid or 0))
    assert file_of(tmp_path / "{rank}.jsonl", _RANK_3, 77) == tmp_path / "3.jsonl"


def test_child_of_python_has_a_file_beside_that_of_its_rank(tmp_path: Path) -> None:
    assert not ending.is_child()
    (tmp_path / "found").touch()

    def find() -> None:
        (tmp_path / "found").write_text(file_of(tmp_path / "{rank}.jsonl", _RANK_3, 77).name)

    child = start(find)
    child.join()
    assert (tmp_path / "found").read_text() == "3-77.jsonl"

"""What `preload` and its variable can say, and what a report of an earlier run says of its kernels."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import fa4_precompile
from fa4_precompile.errors import UsageError
from fa4_precompile.loader.config import Config
from fa4_precompile.loader.wanted import Preloading, Wanted, When
from support import deadline

_VARIABLE = "FA4_PRECOMPILE_PRELOAD"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", Preloading(When.BACKGROUND)),
        ("0", Preloading(When.NEEDED)),
        ("background", Preloading(When.BACKGROUND)),
        ("1", Preloading(When.ATTACHED)),
        ("quickstart", Preloading(When.BACKGROUND, Wanted(spec="quickstart"))),
        ("my model", Preloading(When.BACKGROUND, Wanted(spec="my model"))),
        ("/runs/last.jsonl", Preloading(When.BACKGROUND, Wanted(report=Path("/runs/last.jsonl")))),
        ("/runs/last", Preloading(When.BACKGROUND, Wanted(report=Path("/runs/last")))),
    ],
)
def test_from_env_preload_is_a_word_a_spec_or_a_report(value: str, expected: Preloading) -> None:
    config = Config.from_env({"FA4_PRECOMPILE_CACHE": "/a", _VARIABLE: value})
    assert config.preloading == expected
    assert Config.from_env(config.render()) == config


def test_from_env_preload_that_is_not_set_is_the_background() -> None:
    assert Config.from_env({"FA4_PRECOMPILE_CACHE": "/a"}).preloading == Preloading(When.BACKGROUND)


def test_from_env_preload_of_a_relative_report_is_that_file_wherever_the_job_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for value in ("last.jsonl", "./last.jsonl"):
        config = Config.from_env({"FA4_PRECOMPILE_CACHE": "/a", _VARIABLE: value})
        assert config.preloading.wanted == Wanted(report=tmp_path / "last.jsonl")


@pytest.mark.parametrize("value", ["true", "False", "yes", "on", "2", "01", " 1", "Background", " background ", " "])
def test_from_env_preload_that_is_nearly_a_word_is_refused_not_taken_for_a_spec(value: str) -> None:
    with pytest.raises(UsageError) as caught:
        Config.from_env({"FA4_PRECOMPILE_CACHE": "/a", _VARIABLE: value})
    assert f"{_VARIABLE}={value}" in str(caught.value)
    assert caught.value.hint.startswith("allowed: 0, background, 1, the name of a spec, or a report")


@pytest.mark.parametrize("value", ["", "yes", "a\0b"])
def test_install_with_a_preload_that_can_not_be_meant_changes_nothing(tmp_path: Path, value: str) -> None:
    with pytest.raises(UsageError):
        fa4_precompile.install(tmp_path, preload=value)
    assert fa4_precompile.stats().resolved == 0
    with pytest.raises(UsageError, match="no loader is installed"):
        fa4_precompile.preload()


def test_override_changes_the_preload_that_is_given_and_nothing_else() -> None:
    config = Config.from_env({"FA4_PRECOMPILE_CACHE": "/a", _VARIABLE: "1"})
    assert config.override().preloading.when is When.ATTACHED
    assert config.override(preloading=Preloading(When.NEEDED)).preloading.when is When.NEEDED


# Reports


def _line(*kernels: object) -> str:
    return json.dumps({"process": 1, "resolved": len(kernels), "kernels": kernels}) + "\n"


def _id(number: int) -> str:
    return f"{number:064x}"


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """Where a report is."""
    return tmp_path / "report.jsonl"


def test_report_tells_the_kernels_of_all_its_runs_once_the_last_runs_first(report: Path) -> None:
    report.write_text(_line(_id(1), _id(2)) + _line() + _line(_id(3), _id(1)))
    assert Wanted(report=report).reported() == [_id(3), _id(1), _id(2)]


@pytest.mark.parametrize(
    "line",
    [
        "no JSON\n",
        "[1, 2]\n",
        '{"process": 1, "resolved": 3}\n',
        '{"kernels": "all"}\n',
        _line("../../etc/passwd", 7, None, "A" * 64, _id(5)[:40]),
        "[" * 100_000 + "\n",
        _line(_id(4))[:50] + "\n",
    ],
    ids=["text", "list", "older", "word", "names", "deep", "half"],
)
def test_line_of_a_report_that_names_no_kernels_is_passed_over(report: Path, line: str) -> None:
    report.write_text(line + _line(_id(1)) + line)
    assert Wanted(report=report).reported() == [_id(1)]


def test_report_is_read_from_its_end_however_large_it_is(report: Path) -> None:
    with report.open("wb") as file:
        file.write(_line(_id(1)).encode())
        file.truncate(40 << 20)
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + _line(_id(2)).encode())
    assert Wanted(report=report).reported() == [_id(2)]


def test_report_that_is_a_pipe_nobody_writes_does_not_hang_a_job(report: Path) -> None:
    os.mkfifo(report)
    with deadline(60):
        assert Wanted(report=report).reported() == []


def test_report_that_is_none_raises_what_the_system_says(report: Path) -> None:
    with pytest.raises(OSError, match="directory"):
        Wanted(report=report).reported()


def test_report_that_is_a_folder_or_a_pattern_tells_the_kernels_of_all_its_files_the_newest_first(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    for number, name in enumerate(["a-0.jsonl", "b-1.jsonl", ".b-2.jsonl.tmp", "notes.txt"]):
        (folder / name).write_text(_line(_id(number), _id(7)))
        os.utime(folder / name, (number, number))
    for report in (folder, folder / "{host}-{rank}.jsonl"):
        assert Wanted.parse(f"{report}/").reported() == [_id(1), _id(7), _id(0)]
    assert Wanted.parse(f"{folder}/{{host}}-0.jsonl").reported() == [_id(0), _id(7)]

"""The file that a process has for itself: there from the start, whole at every moment, told a second later."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fa4_precompile.loader.line import Line, ServedRoot
from fa4_precompile.loader.report import report_at_exit
from fa4_precompile.loader.slot import ServedSlot
from fa4_precompile.loader.stats import Counts, Missed

_START = """
import os, sys, time, signal, threading
from pathlib import Path
from fa4_precompile.loader import report
from fa4_precompile.loader.stats import Counts, Missed
counts = Counts()
report.report_at_exit(counts, Path(sys.argv[1]), "error")
call = Missed("fwd", "absent", "sm_100a", {"pass": "fwd", "head_dim": 64}, "why")
"""
_WAIT = "time.sleep(3 * report._PAUSE_S)\n"


def _job(folder: Path, program: str, code: int = 0, **environment: str) -> str:
    """Run a job that reports to a folder, and return what it said."""
    folder.mkdir(exist_ok=True)
    line = [sys.executable, "-c", _START + program, str(folder)]
    done = subprocess.run(
        line, env={**os.environ, **environment}, cwd=folder.parent, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == code, done.stderr
    return done.stderr


def _only(folder: Path) -> Line:
    (file,) = folder.iterdir()
    (line,) = file.read_bytes().splitlines()
    return Line.parse(file.name, line)


def test_process_that_ends_well_has_said_so(tmp_path: Path) -> None:
    assert _job(tmp_path / "runs", "counts.missed('absent', call)", RANK="3", WORLD_SIZE="8", LOCAL_RANK="1") == ""
    line = _only(tmp_path / "runs")
    assert (line.placement.rank, line.placement.local_rank, line.placement.world_size) == (3, 1, 8)
    assert (line.ended, line.strict, line.stats.missed) == (True, True, {"absent": 1})
    assert line.misses == [Missed("fwd", "absent", "sm_100a", {"pass": "fwd", "head_dim": 64}, "why", 1)]
    assert [file.name for file in (tmp_path / "runs").iterdir()] == [f"{os.uname().nodename}-3.jsonl"]


def test_process_is_heard_of_before_anything_has_happened(tmp_path: Path) -> None:
    _job(tmp_path / "runs", "os.kill(os.getpid(), signal.SIGKILL)", code=-9)
    line = _only(tmp_path / "runs")
    assert (line.ended, line.stats.resolved, line.first_lookup_seconds) == (False, 0, None)


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(247)"])
def test_what_happened_is_there_a_second_later_however_the_process_ends(tmp_path: Path, end: str) -> None:
    code = -9 if "SIGKILL" in end else 247
    _job(tmp_path / "runs", f"for _ in range(3): counts.missed('absent', call)\n{_WAIT}{end}", code=code)
    line = _only(tmp_path / "runs")
    assert (line.ended, line.stats.missed, line.misses[0].count) == (False, {"absent": 3}, 3)
    assert line.first_lookup_seconds is not None


def test_what_happens_again_after_a_while_is_told_again(tmp_path: Path) -> None:
    program = f"counts.missed('absent', call)\n{_WAIT}counts.compiled(2.0)\n{_WAIT}os.kill(os.getpid(), signal.SIGKILL)"
    _job(tmp_path / "runs", program, code=-9)
    line = _only(tmp_path / "runs")
    assert (line.stats.missed, line.stats.compiled) == ({"absent": 1}, 1)


def test_thousand_changes_are_written_a_few_times_and_by_no_thread_that_makes_them(tmp_path: Path) -> None:
    program = """
writers, real = [], os.replace
os.replace = lambda *names: (writers.append(threading.current_thread().name), real(*names))
for _ in range(1000):
    counts.missed('absent', call)
time.sleep(3 * report._PAUSE_S)
assert set(writers) == {"fa4-precompile-report"} and len(writers) <= 2, writers
assert threading.active_count() == 1, threading.enumerate()
"""
    _job(tmp_path / "runs", program)
    assert _only(tmp_path / "runs").stats.missed == {"absent": 1000}


def test_forked_child_says_nothing_of_its_parents(tmp_path: Path) -> None:
    program = """
counts.missed('absent', call)
if os.fork() == 0:
    counts.missed('late', call)
    sys.exit(0)
assert os.wait()[1] == 0
"""
    _job(tmp_path / "runs", program)
    assert _only(tmp_path / "runs").stats.missed == {"absent": 1}


def test_child_that_is_forked_while_the_file_is_being_written_ends(tmp_path: Path) -> None:
    program = """
inside, go_on, real = threading.Event(), threading.Event(), os.replace
def slowly(*names):
    inside.set()
    go_on.wait()
    real(*names)
os.replace = slowly
counts.missed('absent', call)
inside.wait()
if os.fork() == 0:
    signal.alarm(60)
    counts.missed('late', call)
    sys.exit(0)
assert os.wait()[1] == 0
go_on.set()
"""
    _job(tmp_path / "runs", program)
    assert _only(tmp_path / "runs").stats.missed == {"absent": 1}


def test_reader_finds_one_whole_line_at_every_moment(tmp_path: Path) -> None:
    program = """
report._PAUSE_S = 0
until = time.monotonic() + 3
while time.monotonic() < until:
    counts.missed('absent', Missed("fwd", "absent", "", {"head_dim": len(counts.misses())}, "x" * 300))
    time.sleep(0.001)
"""
    folder = tmp_path / "runs"
    folder.mkdir()
    job = subprocess.Popen([sys.executable, "-c", _START + program, folder], cwd=tmp_path)
    seen = set()
    while job.poll() is None:
        for file in folder.glob("*.jsonl"):
            (line,) = file.read_bytes().splitlines()
            seen.add(sum(Line.parse(file.name, line).stats.missed.values()))
    assert job.returncode == 0
    assert len(seen) > 10


def test_loader_that_another_one_replaces_leaves_its_file_to_it(tmp_path: Path) -> None:
    _job(
        tmp_path / "runs", "counts.close(); counts = Counts(); report.report_at_exit(counts, Path(sys.argv[1]), 'warn')"
    )
    line = _only(tmp_path / "runs")
    assert (line.on_miss, line.ended) == ("warn", True)


@pytest.mark.parametrize("happened", [True, False])
def test_loader_that_is_removed_ends_its_line_and_takes_away_an_empty_one(tmp_path: Path, happened: bool) -> None:
    lookup = "counts.missed('absent', call)" if happened else "pass"
    _job(tmp_path / "runs", f"{lookup}\ncounts.close()\nos.kill(os.getpid(), signal.SIGKILL)", code=-9)
    lines = [Line.parse(file.name, file.read_bytes()) for file in (tmp_path / "runs").iterdir()]
    assert [line.ended for line in lines] == [True] * happened


def test_folder_that_cannot_be_written_is_said_once_and_at_the_end_with_the_numbers(tmp_path: Path) -> None:
    program = """
os.rmdir(sys.argv[1])
Path(sys.argv[1]).touch()
counts = Counts()
report.report_at_exit(counts, Path(sys.argv[1], "{rank}.jsonl"), "error")
counts.missed('absent', call)
time.sleep(3 * report._PAUSE_S)
"""
    program = program.replace("os.rmdir", "[os.unlink(one) for one in Path(sys.argv[1]).iterdir()]; os.rmdir")
    said = [line for line in _job(tmp_path / "runs", program).splitlines() if "process-" in line and "runs/p" in line]
    assert len(said) == 2, said
    assert all("can't write `" in line for line in said)
    assert "1 missed (1 absent)" in said[1]


def test_call_of_odd_values_and_a_root_of_odd_bytes_are_told_so_that_they_can_be_read(tmp_path: Path) -> None:
    def roots(_thorough: bool) -> list[ServedRoot]:
        return [ServedRoot(os.fsdecode(b"/caches/\xff"), "f" * 64)]

    counts = Counts()
    (tmp_path / "runs").mkdir()
    registered: list[Callable[[], Any]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("atexit.register", registered.append)
        report_at_exit(counts, tmp_path / "runs", "warn", roots)
    counts.missed("absent", Missed("fwd", "absent", "", {"tile": (128, 64), "odd": object, "hôte": "\N{SNOWMAN}"}))
    registered[0]()
    line = _only(tmp_path / "runs")
    assert line.roots == [ServedRoot("/caches/?", "f" * 64)]
    assert line.misses[0].call == {"tile": [128, 64], "odd": str(object), "hôte": "\N{SNOWMAN}"}


def test_steady_call_asks_nobody_so_that_nothing_is_counted_or_written_in_it() -> None:
    class Nobody:
        def contains(self, slot: ServedSlot, key: object) -> bool:
            raise AssertionError("a key that is known is asked for")

        def function_of(self, slot: ServedSlot, key: object) -> Any:
            return self.contains(slot, key)

        def remember(self, slot: ServedSlot, key: object, function: Any) -> None:
            self.contains(slot, key)

    slot = ServedSlot(Nobody(), "fwd", {})
    dict.__setitem__(slot, "key", "function")
    assert "key" in slot
    assert slot["key"] == "function"

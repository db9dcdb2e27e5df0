"""What a process tells of itself: counted right, told once, by every process, and never at the price of the job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NoReturn

import pytest

from fa4_precompile.cache.record import Reference
from fa4_precompile.loader.kernel import Kernel, Opened
from fa4_precompile.loader.stats import Counts, Stats, say
from fa4_precompile.products.load import Handle
from support import deadline, make_origin, numbered_record


def _kernel(number: int, load_seconds: float = 0.0, compile_seconds: float = 0.0) -> Kernel:
    """Return a kernel that nobody loaded."""
    record = numbered_record(number)
    origin = make_origin(record, compile_seconds=compile_seconds)
    reference = Reference.parse_file("made-up.json", record.render_file())
    return Kernel(reference, Path("/made-up"), None, load_seconds, Handle(0), lambda: origin)


# Counting


def test_counts_of_nothing_are_zero() -> None:
    assert Counts().stats() == Stats(0, 0, {}, 0, 0, 0, 0.0, 0.0, 0.0)


def test_counts_are_of_what_happened() -> None:
    counts = Counts()
    counts.resolved(_kernel(1, load_seconds=0.25, compile_seconds=8.0))
    counts.preloaded(_kernel(2, load_seconds=0.5, compile_seconds=100.0))
    for reason in ("absent", "damaged", "absent"):
        counts.missed(reason)
    counts.compiled(3.0)
    counts.compiled(1.0)
    counts.stored("id")
    counts.refused("function")
    assert counts.stats() == Stats(
        resolved=1,
        preloaded=1,
        missed={"absent": 2, "damaged": 1},
        compiled=2,
        stored=1,
        refused=1,
        load_seconds=0.75,
        compile_seconds=4.0,
        saved_seconds=8.0,
    )


def test_kernel_that_was_preloaded_and_then_needed_took_its_time_once() -> None:
    counts = Counts()
    counts.preloaded(_kernel(1, load_seconds=0.5, compile_seconds=8.0))
    counts.resolved(_kernel(1, load_seconds=0.5, compile_seconds=8.0))
    stats = counts.stats()
    assert (stats.resolved, stats.preloaded, stats.load_seconds, stats.saved_seconds) == (1, 1, 0.5, 8.0)


def test_kernel_that_was_loaded_in_the_background_took_what_its_lookup_waited() -> None:
    counts, kernel = Counts(), _kernel(1, load_seconds=0.25, compile_seconds=8.0)
    for reference in (kernel.reference, _kernel(2).reference):
        counts.preloaded(Opened(reference, Path("/made-up"), 0, 100.0, Handle(0)))
    assert (counts.stats().preloaded, counts.stats().load_seconds) == (2, 0)
    counts.resolved(kernel)
    assert (counts.stats().resolved, counts.stats().load_seconds) == (1, 0.25)


def test_kernels_are_those_that_were_resolved_each_once() -> None:
    counts = Counts()
    for number in (2, 1, 2):
        counts.resolved(_kernel(number))
    counts.preloaded(_kernel(3))
    assert counts.kernels() == [_kernel(2).reference.id, _kernel(1).reference.id]


def test_resolved_kernels_of_another_toolchain_are_counted_by_what_differs() -> None:
    counts, toolchain = Counts(), _kernel(1).reference.toolchain
    counts.resolved(_kernel(1))
    assert counts.stats().inexact == {}
    inexact = {"another": "nothing of it was resolved"}
    counts.learn(inexact)
    inexact[toolchain] = "dsl.x 1 there, 2 here"  # a root of it came later
    counts.learn(inexact)
    counts.resolved(_kernel(2))
    assert counts.stats().inexact == {"dsl.x 1 there, 2 here": 2}


def test_stats_do_not_change_when_more_happens() -> None:
    counts = Counts()
    before = counts.stats()
    counts.missed("absent")
    assert before.missed == {}


# The sentence


def test_sentence_of_a_job_that_needed_nothing_is_short() -> None:
    assert str(Counts().stats()) == "0 kernels resolved in 0.0 ms, 0 missed, 0 compiled"


def test_sentence_counts_what_was_preloaded() -> None:
    stats = Stats(2, 5, {}, 0, 0, 0, 0.0123, 0.0, 0.0)
    assert str(stats).startswith("2 kernels resolved and 5 preloaded in 12.3 ms, ")


def test_sentence_says_reasons_seconds_and_what_was_stored_and_refused() -> None:
    inexact = {"dsl.x 1 there, 2 here": 2}
    stats = Stats(2, 0, {"absent": 2, "sm-count": 1}, 3, 1, 4, 0.0123, 12.34, 56.78, inexact)
    assert str(stats) == (
        "2 kernels resolved in 12.3 ms, 3 missed (2 absent, 1 sm-count), 3 compiled in 12.3 s, 1 stored, "
        "4 compiles refused, 56.8 s of compiling saved, 2 built by another toolchain (dsl.x 1 there, 2 here)"
    )


# The report

_COUNT = """
import multiprocessing, os, sys
from pathlib import Path
from fa4_precompile.loader.report import report_at_exit
from fa4_precompile.loader.stats import Counts

FILE = Path(sys.argv[1]) if len(sys.argv) > 1 else None

def work(number):
    counts = Counts()
    for _ in range(number):
        counts.missed("absent")
    report_at_exit(counts, FILE)

"""


def _run(folder: Path, program: str, *arguments: object, code: int = 0) -> str:
    """Run a program that reports to the file of the first argument, and return what it said."""
    path = folder / "job.py"
    path.write_text(_COUNT + program)
    line = [sys.executable, str(path), *map(str, arguments)]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == code, done.stderr
    return done.stderr


def _lines(path: Path) -> list[dict[str, Any]]:
    text = path.read_text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_report_is_a_sentence_on_standard_error_where_no_file_is_named(tmp_path: Path) -> None:
    said = _run(tmp_path, "work(2); print(os.getpid(), file=sys.stderr)").splitlines()
    assert said[1:] == [
        f"fa4-precompile: 0 kernels resolved in 0.0 ms, 2 missed (2 absent), 0 compiled (process {said[0]})"
    ]


def test_report_is_a_line_of_json_in_the_file_that_is_named(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    said = _run(tmp_path, "work(2); print(os.getpid(), file=sys.stderr)", file)
    (line,) = _lines(file)
    started, time = (datetime.fromisoformat(line.pop(name).replace("Z", "+00:00")) for name in ("started", "time"))
    assert started <= time <= datetime.now(timezone.utc)
    assert 0 <= line.pop("first_lookup_seconds") < 60
    assert line == {
        "process": int(said),
        "host": os.uname().nodename,
        "rank": None,
        "local_rank": None,
        "world_size": None,
        "job": "",
        "ended": True,
        "on_miss": "warn",
        "strict": False,
        "roots": [],
        "toolchains": [],
        "misses": [],
        "slowest": [],
        "resolved": 0,
        "preloaded": 0,
        "missed": {"absent": 2},
        "compiled": 0,
        "stored": 0,
        "refused": 0,
        "load_seconds": 0,
        "compile_seconds": 0,
        "saved_seconds": 0,
        "inexact": {},
        "kernels": [],
    }


def test_report_tells_what_happened_after_it_was_asked_for(tmp_path: Path) -> None:
    _run(tmp_path, "counts = Counts(); report_at_exit(counts, FILE); counts.missed('late')", tmp_path / "out.jsonl")
    (line,) = _lines(tmp_path / "out.jsonl")
    assert line["missed"] == {"late": 1}


@pytest.mark.parametrize(("end", "code"), [("sys.exit(3)", 3), ("raise ZeroDivisionError", 1)])
def test_report_is_made_however_python_ends(tmp_path: Path, end: str, code: int) -> None:
    _run(tmp_path, f"work(1)\n{end}", tmp_path / "out.jsonl", code=code)
    assert len(_lines(tmp_path / "out.jsonl")) == 1


def test_processes_that_report_to_one_file_append_a_line_each(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    file.write_text('{"before": 1}\n')
    script = tmp_path / "job.py"
    script.write_text(_COUNT + "work(int(sys.argv[2]))\n")
    jobs = [subprocess.Popen([sys.executable, script, file, str(number)]) for number in range(1, 9)]
    assert [job.wait(300) for job in jobs] == [0] * 8
    before, *lines = _lines(file)
    assert before == {"before": 1}
    assert sorted(line["missed"]["absent"] for line in lines) == list(range(1, 9))
    assert {line["process"] for line in lines} == {job.pid for job in jobs}


def test_child_that_is_forked_says_nothing_of_its_parents(tmp_path: Path) -> None:
    program = """
work(1)
child = os.fork()
if not child:
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
process = multiprocessing.get_context("fork").Process(target=print)
process.start()
process.join()
assert process.exitcode == 0
"""
    _run(tmp_path, program, tmp_path / "out.jsonl")
    assert len(_lines(tmp_path / "out.jsonl")) == 1


def test_child_of_multiprocessing_reports_though_it_leaves_without_atexit(tmp_path: Path) -> None:
    program = """
if __name__ == "__main__":
    work(1)
    for method, number in [("spawn", 2), ("forkserver", 3), ("fork", 4)]:
        process = multiprocessing.get_context(method).Process(target=work, args=(number,))
        process.start()
        process.join()
        assert process.exitcode == 0
"""
    _run(tmp_path, program, tmp_path / "out.jsonl")
    assert [line["missed"]["absent"] for line in _lines(tmp_path / "out.jsonl")] == [2, 3, 4, 1]


def test_child_of_a_child_that_is_forked_says_nothing_of_its_parents(tmp_path: Path) -> None:
    program = """
def child():
    work(2)
    process = multiprocessing.get_context("fork").Process(target=print)
    process.start()
    process.join()

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == 0
"""
    _run(tmp_path, program, tmp_path / "out.jsonl")
    assert [line["missed"]["absent"] for line in _lines(tmp_path / "out.jsonl")] == [2]


@pytest.mark.parametrize("is_in_file", [True, False], ids=["in a file", "in a folder that does not exist"])
def test_file_that_cannot_be_written_is_said_with_the_numbers_and_the_job_ends_well(
    tmp_path: Path, is_in_file: bool
) -> None:
    file = tmp_path / ("job.py" if is_in_file else "nowhere") / "out.jsonl"
    (said,) = _run(tmp_path, "work(2)", file).splitlines()
    reason = "Not a directory" if is_in_file else "No such file or directory"
    assert said.startswith(f"fa4-precompile: can't write `{file}`: {reason}; 0 kernels resolved")
    assert "2 missed (2 absent)" in said


def test_report_of_a_job_that_closed_standard_error_does_not_fail_it(tmp_path: Path) -> None:
    assert _run(tmp_path, "work(1); os.close(2)") == ""


def test_sentence_for_a_stream_that_raises_what_it_likes_is_lost_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    class Stream:
        def write(self, line: str) -> NoReturn:
            told.append(line)
            raise RuntimeError("a logger's own stream")

    monkeypatch.setattr(sys, "stderr", Stream())
    say("a sentence")
    assert told == ["fa4-precompile: a sentence\n"]


def test_report_that_is_a_pipe_nobody_reads_does_not_keep_the_job_from_its_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "report")
    with deadline(120):
        (said,) = _run(tmp_path, "work(2)", tmp_path / "report").splitlines()
    assert "can't write" in said
    assert "2 missed (2 absent)" in said


def test_report_that_cannot_be_said_does_not_change_the_exit_code(tmp_path: Path) -> None:
    assert _run(tmp_path, "work(1); os.dup2(os.open('/dev/full', os.O_WRONLY), 2)") == ""

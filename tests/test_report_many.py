"""Many processes of several hosts that report at once, some of which are killed: no line is torn or lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fa4_precompile.loader.report_files import report_path
from fa4_precompile.reports.job import JobReport
from fa4_precompile.reports.read import read

# Forks the ranks of a job, as a launcher that has done the imports; four hosts are simulated by their name. Each rank
# has something new to tell all the time, and some are killed in the middle of it.
_LAUNCHER = """
import os, random, signal, sys, time
from fa4_precompile.loader import ranks, report
from fa4_precompile.loader.report_files import report_path
from fa4_precompile.loader.stats import Counts, Missed

RANKS, HOSTS, KILLED = 64, 4, set(map(int, sys.argv[2].split(",")))
report._PAUSE_S = 0.02
told, tell = os.pipe()
replace, has_told = os.replace, []

def replace_and_tell(part, file):
    replace(part, file)
    if not has_told and b'"absent"' in file.read_bytes():  # no longer the line from the start, which has nothing
        has_told.append(file)
        os.write(tell, b".")

def work(rank, end):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank % 16), WORLD_SIZE=str(RANKS), SLURM_JOB_ID="8123")
    ranks._host = lambda: f"node-{rank // (RANKS // HOSTS)}"
    os.replace = replace_and_tell
    counts = Counts()
    report.report_at_exit(counts, report_path(sys.argv[1]), "error")
    number = 0
    while number == 0 or time.monotonic() < end or rank in KILLED:
        number += 1
        call = {"pass": "fwd", "head_dim": number % 150, "name": "x" * 40}
        counts.missed("absent", Missed("fwd", "absent", "sm_100a", call, "why " * 20))
        time.sleep(0.03)

end = time.monotonic() + 1
processes = {}
for rank in range(RANKS):
    process = os.fork()
    if not process:
        work(rank, end)
        sys.exit(0)
    processes[process] = rank
chance = random.Random(int(sys.argv[3]))
if sys.argv[4] == "each":
    for _ in processes:
        os.read(told, 1)
for process, rank in processes.items():
    if rank in KILLED:
        time.sleep(chance.uniform(0, 0.1))
        os.kill(process, signal.SIGKILL)
ended = {}
for _ in processes:
    process, status = os.wait()
    ended[processes[process]] = os.waitstatus_to_exitcode(status)
assert ended == {rank: -9 if rank in KILLED else 0 for rank in range(RANKS)}, ended
"""

_KILLED = [5, 9, 16, 31, 40, 41, 50, 63]


def _run(report: str, folder: Path, attempt: int, whose: str) -> JobReport:
    """Run the job, and return what it has reported."""
    line = [sys.executable, "-c", _LAUNCHER, report, ",".join(map(str, _KILLED)), str(attempt), whose]
    own = {name: value for name, value in os.environ.items() if name not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    done = subprocess.run(line, cwd=folder, env=own, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    return JobReport.of(read([report_path(report)]))


@pytest.mark.chance
@pytest.mark.parametrize(
    "name",
    [
        "{host}/{rank}.jsonl",
        *(pytest.param(one, marks=pytest.mark.long) for one in ("runs/", "{rank}-{process}.jsonl")),
    ],
)
def test_of_64_processes_that_report_at_once_the_8_that_are_killed_are_told_and_none_is_torn(
    tmp_path: Path, name: str, attempt: int
) -> None:
    report = _run(f"{tmp_path}/reports/{name}", tmp_path, attempt, "each")
    assert (report.faults, report.missing, report.unexpected) == ([], [], [])
    assert (len(report.lines), {host: len(lines) for host, lines in report.hosts.items()}) == (
        64,
        {f"node-{number}": 16 for number in range(4)},
    )
    assert [line.placement.rank for line in report.incomplete] == _KILLED
    assert sum(line.ended for line in report.lines) == 56
    # Also those that were killed have told of what they had missed until shortly before.
    assert all(line.stats.missed["absent"] > 0 and line.misses for line in report.lines)


@pytest.mark.chance
def test_shared_file_has_a_whole_line_of_each_that_ended_and_none_of_those_that_were_killed(
    tmp_path: Path, attempt: int
) -> None:
    report = _run(f"{tmp_path}/out.jsonl", tmp_path, attempt, "all")
    assert (report.faults, report.missing, len(report.lines)) == ([], _KILLED, 56)
    assert all(line.ended for line in report.lines)

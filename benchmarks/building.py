"""Builds with one job against FlashAttention itself, by turns in one run, and two jobs against one.

    python benchmarks/building.py [--whole SPEC]

For the quickstart and for kernels of all kinds (kinds.yaml): the CPU seconds of all processes, and the memory of the
largest one; the ratios are medians of the pairs. Then when the first kernel is there. `--whole` builds another
spec with two jobs.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rows import Row

_HERE = Path(__file__).resolve().parent
_STOCK = [sys.executable, str(_HERE / "stock.py")]
_BUILD = [sys.executable, "-c", "import sys; from fa4_precompile.cli import main; main(sys.argv[1:])", "build"]
_PAIRS = 3


@dataclass(frozen=True)
class _Run:
    cpu: float
    wall: float
    peak_mib: float
    out: str


def rows(pairs: int = _PAIRS) -> Iterator[Row]:
    """Measure; medians."""
    quickstart = [_pair("quickstart") for _ in range(pairs)]
    yield from _against_stock("quickstart", quickstart)
    yield from _two_jobs([ours for _, ours in quickstart])
    kinds = [_pair(str(_HERE / "kinds.yaml")) for _ in range(pairs)]
    yield from _against_stock("kernels of all kinds", kinds)
    yield from _first(pairs)


def whole(spec: str) -> Iterator[Row]:
    """Build a spec with two jobs."""
    run = _build(spec, 2)
    yield Row(f"{spec}, two jobs", run.wall, "s wall")
    yield Row(f"{spec}, two jobs", run.cpu, "CPU s")
    yield Row(f"{spec}, two jobs: kernels", json.loads(run.out)["built"], "")


def _pair(spec: str) -> tuple[_Run, _Run]:
    """Compile the kernels of a spec by FlashAttention alone, and build them with one job."""
    with tempfile.TemporaryDirectory() as folder:
        stock = _run([*_STOCK, spec, folder])
    ours = _build(spec, 1)
    kernels = json.loads(ours.out)["built"]
    if int(stock.out) != kernels:
        raise SystemExit(f"FlashAttention made {stock.out.strip()} kernels, and we made {kernels}")
    return stock, ours


def _against_stock(name: str, runs: Sequence[tuple[_Run, _Run]]) -> Iterator[Row]:
    yield Row(f"{name}: stock", statistics.median(stock.cpu for stock, _ in runs), "CPU s")
    yield Row(f"{name}: one job", statistics.median(ours.cpu for _, ours in runs), "CPU s")
    ratio = statistics.median(stock.cpu / ours.cpu for stock, ours in runs)
    yield Row(f"{name}: kernels where stock makes one", ratio, "")
    yield Row(f"{name}: stock's peak", statistics.median(stock.peak_mib for stock, _ in runs), "MiB")
    yield Row(f"{name}: a job's peak", statistics.median(ours.peak_mib for _, ours in runs), "MiB")


def _two_jobs(one_job: Sequence[_Run]) -> Iterator[Row]:
    """Compare the time of compiling: what a build takes less what asking for its plan takes."""
    ratios = []
    for run in one_job:
        asking = _run([*_BUILD[:-1], "plan", "quickstart", "--json"]).wall
        one, two = (json.loads(each.out)["seconds"] - asking for each in (run, _build("quickstart", 2)))
        ratios.append(one / two)
    yield Row("two jobs: kernels where one job makes one", statistics.median(ratios), "")


def _first(pairs: int) -> Iterator[Row]:
    stock, ours = [], []
    for _ in range(pairs):
        with tempfile.TemporaryDirectory() as folder:
            stock.append(_until([*_STOCK, "quickstart", folder], Path(folder), "*.o"))
        with tempfile.TemporaryDirectory() as folder:
            command = [*_BUILD, "quickstart", "--cache", str(Path(folder, "cache")), "-j", "1", "-q"]
            ours.append(_until(command, Path(folder), "records/*/*/*.json"))
    yield Row("first kernel: stock", statistics.median(stock), "s wall")
    yield Row("first kernel published", statistics.median(ours), "s wall")


def _until(command: Sequence[str], folder: Path, pattern: str) -> float:
    start = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not any(folder.rglob(pattern)):
            if process.poll() is not None:
                raise SystemExit(f"`{' '.join(command)}` has ended without a kernel")
            time.sleep(0.02)
        seconds = time.monotonic() - start
        process.send_signal(signal.SIGINT)
    return seconds


def _build(spec: str, jobs: int) -> _Run:
    with tempfile.TemporaryDirectory() as folder:
        return _run([*_BUILD, spec, "--cache", str(Path(folder, "cache")), "-j", str(jobs), "--json"])


def _run(command: Sequence[str]) -> _Run:
    """Run a command, and return what it and all its own processes have used; `peak_mib` is the largest one's."""
    start = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        out = process.stdout.read() if process.stdout else ""
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"`{' '.join(command)}` has ended with exit code {process.returncode}")
    return _Run(used.ru_utime + used.ru_stime, time.monotonic() - start, used.ru_maxrss / 1024, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--whole", metavar="SPEC", action="append", default=[], help="build this spec with two jobs")
    arguments = parser.parse_args()
    for row in (row for spec in arguments.whole for row in whole(spec)) if arguments.whole else rows():
        print(row.line(), flush=True)

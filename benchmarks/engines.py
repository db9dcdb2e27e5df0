"""Builds on a Dask cluster of worker processes of this machine, against its own pool with as many jobs, by turns.

    PYTHONPATH=tests python benchmarks/engines.py [--jobs 4] [--pairs 2] [--spec SPEC] [--faults SECONDS]

A cluster is cold for its first build: its workers start their fork servers. The second one finds them. `--faults`
instead builds once while every so many seconds a worker is killed, and another one started; one worker has another
quack, one flips a byte of each kernel, and then the scheduler is killed during another build.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from rows import Row

from clusters import Cluster, cluster
from product import command, run

_TESTS = Path(__file__).resolve().parents[1] / "tests"


def _build(spec: str, cache: Path, *more: object) -> dict[str, object]:
    """Build into a new cache, and return the report, with the fingerprint."""
    done = run("build", spec, "--cache", cache, "--json", *more)
    assert done.code == 0, done.err
    report: dict[str, object] = json.loads(done.out)
    return {**report, "fingerprint": run("fingerprint", "--cache", cache).out.strip()}


def rows(spec: str, jobs: int, pairs: int) -> Iterator[Row]:
    """Measure, by turns."""
    seconds: dict[str, list[float]] = {"local": [], "cold": [], "warm": [], "one process": []}
    names = set()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(pairs):
            made = Path(folder, str(number))
            made.mkdir()

            def build(name: str, *more: object, made: Path = made) -> None:
                report = _build(spec, made / name.replace(" ", "-"), *more)
                seconds[name].append(float(str(report["seconds"])))
                names.add(report["fingerprint"])
                print(f"{name}: {report['seconds']} s", file=sys.stderr, flush=True)

            build("local", "-j", jobs)
            with cluster(made / "dask", *[{}] * jobs) as workers:
                build("cold", "--executor", workers.engine)
                build("warm", "--executor", workers.engine)
            with cluster(made / "threads") as workers:
                workers.add({}, jobs)
                workers.wait_for(1)
                build("one process", "--executor", workers.engine)
    local = seconds["local"]
    yield Row(f"{spec}, {jobs} jobs of this machine's pool", statistics.median(local), "s")
    for name, found in seconds.items():
        ratios = [mine / theirs for mine, theirs in zip(local, found, strict=True)]
        yield Row(
            f"speed on Dask, {name}", statistics.median(ratios), f"of the pool's ({min(ratios):.2f}-{max(ratios):.2f})"
        )
    yield Row("fingerprints", len(names), "")


def faults(spec: str, every_s: float) -> Iterator[Row]:
    """Build while all that can go wrong does."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        local = _build(spec, made / "local")
        odd = {"PYTHONPATH": f"{_other_quack(made / 'odd')}:{os.environ.get('PYTHONPATH', '')}"}
        liar = {"PYTHONPATH": f"{_TESTS / 'liar'}:{os.environ.get('PYTHONPATH', '')}", "LIAR": "worker"}
        with cluster(made / "dask", {}, {}, {}, odd, liar) as workers:
            with _killing(workers, every_s) as killed:
                done = run("build", spec, "--cache", made / "far", "--executor", workers.engine, "--json")
            print(done.err)
            yield Row("exit code", done.code, f"with {len(killed)} workers killed")
        same = run("fingerprint", "--cache", made / "far").out.strip() == local["fingerprint"]
        yield Row("fingerprint as that of the local build", same, "")
        with cluster(made / "again", {}, {}, {}, {}) as workers:
            building = subprocess.Popen(
                command("build", spec, "--cache", made / "lost", "--executor", workers.engine),
                stderr=subprocess.PIPE,
                text=True,
            )
            assert building.stderr is not None
            for line in building.stderr:
                if line.startswith("[3/"):
                    workers.scheduler.kill()
                    break
            print(building.communicate()[1])
            yield Row("exit code", building.returncode, "when the scheduler was killed")
        whole = run("verify", "--cache", made / "lost")
        yield Row("exit code", whole.code, "of `verify` then")
        went_on = _build(spec, made / "lost")
        yield Row("kernels", float(str(went_on["cached"])), "were there for the next build")
        yield Row("fingerprint then", went_on["fingerprint"] == local["fingerprint"], "")


@contextlib.contextmanager
def _killing(workers: Cluster, every_s: float) -> Iterator[list[int]]:
    """Kill one of the first three workers now and then, and start another in its place, as a nanny would."""
    killed: list[int] = []
    end = threading.Event()

    def kill() -> None:
        while not end.wait(every_s):
            place = random.randrange(3)
            victim = workers.workers[place]
            victim.kill()
            victim.wait()
            killed.append(victim.pid)
            workers.workers[place] = workers.add({})
            workers.workers.pop()

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        end.set()
        thread.join()


def _other_quack(folder: Path) -> Path:
    import importlib.util

    spec = importlib.util.find_spec("quack")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    shutil.copytree(spec.submodule_search_locations[0], folder / "quack")
    with (folder / "quack" / "utils.py").open("a") as source:
        source.write("\n# Another release.\n")
    return folder


def main() -> None:
    """Print the rows as they come."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", default="quickstart")
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--faults", type=float, metavar="SECONDS")
    asked = parser.parse_args()
    found = faults(asked.spec, asked.faults) if asked.faults else rows(asked.spec, asked.jobs, asked.pairs)
    start = time.monotonic()
    for row in found:
        print(row.line(), flush=True)
    print(f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()

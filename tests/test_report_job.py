"""What real jobs tell of themselves: roots, kernels, the calls they missed; and what `report` makes of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import product
from command_line import Cli, documents
from fa4_precompile.cache.store import Root
from fa4_precompile.loader.line import Line, ServedRoot
from fa4_precompile.loader.wanted import Wanted
from fa4_precompile.reports.read import read
from jobs import command, run_from_scratch
from loader_tasks import SMALL
from product import records

pytestmark = pytest.mark.compiles


def _fingerprint(cache: Path) -> str:
    return product.run("fingerprint", "--cache", cache).out.split()[-1]


def _lines(folder: Path) -> dict[int | None, Line]:
    told = read([folder])
    assert told.faults == []
    return {line.placement.rank: line for line in told.lines}


def test_ranks_of_a_real_job_are_proved_to_be_served_and_the_one_that_is_not_is_told_with_its_call(
    cli: Cli, small_cache: Path, tmp_path: Path
) -> None:
    # Rank 2 makes a call that nobody built, and is killed a while later; rank 3 is never started.
    launcher = """
import json, os, subprocess, sys
started = []
for rank, line in enumerate(map(json.loads, sys.argv[1:])):
    environment = {**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "4"}
    started.append(subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
print([process.wait() for process in started])
"""
    failing = """
import os, signal, time
import fake_job
try:
    fake_job.make(fake_job.Call(head_dim=96, training=True))
except Exception:
    time.sleep(3)
os.kill(os.getpid(), signal.SIGKILL)
"""
    served = json.dumps(command(SMALL))
    done = run_from_scratch(
        [
            *product.command("run", "--cache", small_cache, "--strict", "--report", f"{tmp_path}/runs/", "--"),
            *(sys.executable, "-c", launcher, served, served, json.dumps([sys.executable, "-c", failing])),
        ]
    )
    assert done.out.splitlines()[-1] == "[0, 0, -9]", done.err
    lines = _lines(tmp_path / "runs")
    assert set(lines) == {0, 1, 2}
    good, also_good, bad = lines[0], lines[1], lines[2]
    assert [line.stats.resolved for line in (good, also_good)] == [6, 6]
    assert sorted(good.kernels) == sorted(record.id for record in records(small_cache))
    assert good.toolchains == sorted({record.toolchain for record in records(small_cache)})
    # One process of each host has read all of a root that is not sealed.
    assert good.roots == [ServedRoot(str(small_cache), _fingerprint(small_cache))]
    assert also_good.roots == [ServedRoot(str(small_cache))]
    assert good.strict
    assert good.ended
    assert {slow.slot for slow in good.slowest} <= {"fwd", "bwd", "bwd_pre", "bwd_post"}
    assert good.first_lookup_seconds is not None
    (miss,) = bad.misses
    assert (bad.ended, miss.slot, miss.reason, miss.arch) == (False, "fwd", "absent", "sm_100a")
    assert miss.call is not None
    assert (miss.call["pass"], miss.call["head_dim"], miss.call["causal"]) == ("bwd", 96, True)
    shown = cli("report", f"{tmp_path}/runs/", "--json")
    assert shown.code == 1
    assert [miss["call"]["head_dim"] for miss in documents(shown)["misses"]] == [96]
    assert documents(shown)["ranks"]["missing"] == [3]
    # What earlier runs used is what the next can preload.
    assert sorted(Wanted.parse(f"{tmp_path}/runs/").reported()) == sorted(good.kernels)


@pytest.mark.long
def test_job_that_compiles_tells_the_call_too_and_one_with_a_sealed_cache_its_name(
    small_cache: Path, tmp_path: Path
) -> None:
    cache = product.copy_cache(small_cache, tmp_path / "kernels", without="bwd_post")
    line = command(SMALL)
    report = f"{tmp_path}/{{rank}}.jsonl"
    run = product.command("run", "--cache", cache, "--on-miss", "compile", "--report", report, "--")
    done = run_from_scratch([*run, *line])
    assert done.code == 0, done.err
    (compiled,) = _lines(tmp_path).values()
    assert (compiled.stats.compiled, compiled.on_miss) == (1, "compile")
    (miss,) = compiled.misses
    assert (miss.slot, miss.reason) == ("bwd_post", "absent")
    (tmp_path / f"process-{compiled.process}.jsonl").unlink()
    sealed = product.copy_cache(small_cache, tmp_path / "sealed")
    assert product.run("seal", "--cache", sealed).code == 0
    done = run_from_scratch(
        [*product.command("run", "--cache", sealed, "--report", report, "--"), *line], RANK="5", LOCAL_RANK="5"
    )
    assert done.code == 0, done.err
    contents = Root(sealed).sealed
    assert contents is not None
    assert _lines(tmp_path)[5].roots == [ServedRoot(str(sealed), contents.fingerprint)]

"""Writing down what a job looks up: whole lines, whoever else writes, and never at the job's expense."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest
from recording_tasks import (
    DEVICE,
    faked_job,
    forked,
    functions_of_steady_call,
    look,
    rank,
    recorded_job,
    recording,
)

from fa4_precompile.cache.key import encode_key
from fa4_precompile.cache.recording import Lookup
from fa4_precompile.precompile.recorded.reading import Recorded, read_recordings
from fa4_precompile.providers.recognizer import Recognized
from fa4_precompile.providers.registry import DEFAULT
from fake_job import Call
from jobs import Jobs, run_from_scratch
from support import barrier, join, start

_CALLS = [Call(), Call(training=True), Call(head_dim=128, causal=False)]


def _whole(folder: Path) -> list[Recorded]:
    """Return what the processes of a recording wrote; what can't be used fails the test."""
    found = read_recordings([folder])
    assert found.findings == []
    return found.processes


def _slots(lookups: list[Lookup]) -> list[str]:
    return [one.slot for one in lookups]


# The file


def test_lookup_is_written_with_its_process_and_what_it_was_looked_up_of(tmp_path: Path) -> None:
    one = recording(tmp_path, OMPI_COMM_WORLD_RANK="7")
    look(one, 1)
    look(one, 2, "bwd")
    (found,) = _whole(tmp_path)
    assert (found.process.process, found.process.rank) == (os.getpid(), "7")
    (served,) = found.served.values()
    assert (served.provider, served.target.arch, served.target.sms) == ("flash-attn-4", "sm_100a", 148)
    assert [(one.slot, one.key, one.axes, one.answer) for one in found.lookups] == [
        ("fwd", encode_key((1,)), None, "absent"),
        ("bwd", encode_key((2,)), None, "absent"),
    ]
    assert not found.is_complete, "this process has not ended"


def test_process_that_looks_nothing_up_leaves_no_file(tmp_path: Path) -> None:
    recording(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_folder_is_made(tmp_path: Path) -> None:
    look(recording(tmp_path / "a" / "b"), 1)
    assert len(_whole(tmp_path / "a" / "b")) == 1


def test_child_that_is_forked_has_a_file_of_its_own(tmp_path: Path, jobs: Jobs) -> None:
    parent, child = jobs.run(forked, tmp_path)
    found = {one.process.process: [lookup.key for lookup in one.lookups] for one in _whole(tmp_path)}
    assert found == {parent: [encode_key((1,)), encode_key((3,))], child: [encode_key((2,))]}


def test_threads_write_into_one_file(tmp_path: Path) -> None:
    one, together = recording(tmp_path), threading.Barrier(8)

    def work(number: int) -> None:
        together.wait()
        for key in range(20):
            look(one, 100 * number + key)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (found,) = _whole(tmp_path)
    assert len({lookup.key for lookup in found.lookups}) == 160


def test_ranks_of_four_hosts_record_at_once_and_those_that_are_killed_are_told(tmp_path: Path) -> None:
    together, killed = barrier(64), set(range(0, 64, 8))
    ranks = [
        start(rank, tmp_path, f"node-{number % 4}", number, 20 + number, together, number in killed)
        for number in range(64)
    ]
    for process in ranks:
        process.join(300)
    found = _whole(tmp_path)
    assert {int(one.process.rank) for one in found if not one.is_complete} == killed
    assert {one.process.host for one in found} == {f"node-{number}" for number in range(4)}
    for one in found:
        number = int(one.process.rank)
        expected = (20 + number) // 2 + 1 if number in killed else 20 + number
        assert [lookup.key for lookup in one.lookups] == [encode_key((key,)) for key in range(expected)]


def test_process_that_ends_by_itself_says_so(tmp_path: Path) -> None:
    process = start(rank, tmp_path, "node", 0, 3, barrier(1), False)
    join(process)
    (found,) = _whole(tmp_path)
    assert found.is_complete


# At no expense of the job's


@pytest.mark.parametrize("place", ["file", "full"])
def test_what_can_not_be_written_is_said_once_and_raises_nothing(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    folder = {"file": tmp_path / "file", "full": Path("/proc/self")}[place]
    warnings: list[str] = []
    one = recording(folder, warnings)
    for number in range(3):
        look(one, number)
    (warning,) = warnings
    assert warning.startswith(f"can't write `{folder}/")
    assert warning.endswith("what this process looks up is not recorded from here on")


def test_call_that_can_not_be_told_is_said_and_the_job_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a tensor of another kind")

    monkeypatch.setattr("fa4_precompile.providers.fa4.observed.seen", fail)
    warnings: list[str] = []
    look(recording(tmp_path, warnings), 1)
    assert warnings == ["a lookup in slot `fwd` can't be recorded: RuntimeError: a tensor of another kind"]


def test_key_that_can_not_be_written_is_told_with_its_reason(tmp_path: Path) -> None:

    recording(tmp_path).look(DEFAULT, lambda: DEVICE, "fwd", Recognized((object(),)), None, "key")
    ((lookup,),) = [one.lookups for one in _whole(tmp_path)]
    assert lookup.key == ""
    assert "object" in lookup.unsaid[0]


def test_steady_call_runs_what_it_runs_without_a_recording(tmp_path: Path, jobs: Jobs) -> None:
    without, with_one = jobs.run(functions_of_steady_call, tmp_path)
    assert without
    assert with_one == without


# In jobs


def test_each_kernel_is_recorded_once_with_the_call_that_asked_first(tmp_path: Path, jobs: Jobs) -> None:
    jobs.run(faked_job, [*_CALLS, *_CALLS], tmp_path)
    (found,) = _whole(tmp_path)
    assert _slots([*found.lookups]) == ["fwd", "fwd", "bwd_pre", "bwd", "bwd_post", "fwd"]
    assert {one.answer for one in found.lookups} == {"fake"}
    first, training, *_ = found.lookups
    assert first.axes == {"pass": "fwd", "dtype": "bf16", "head_dim": 64, "causal": True}
    assert training.axes == {**first.axes, "pass": "bwd"}


def test_hits_and_misses_are_recorded(tmp_path: Path, small_cache: Path, jobs: Jobs) -> None:
    report = jobs.run(recorded_job, _CALLS, tmp_path / "record", [small_cache], "error")
    assert len(report.missing) == 1
    (found,) = _whole(tmp_path / "record")
    assert [(one.slot, one.answer) for one in found.lookups] == [
        *(("fwd", "hit"), ("fwd", "hit"), ("bwd_pre", "hit"), ("bwd", "hit"), ("bwd_post", "hit")),
        ("fwd", "absent"),
    ]
    assert found.lookups[-1].axes == {"pass": "fwd", "dtype": "bf16", "head_dim": 128}


def test_variable_alone_makes_a_job_record_without_a_cache(tmp_path: Path) -> None:
    code = "import torch, fa4_precompile.loader.loader as l; i = l.installed_loader(); print(i._shared.behavior)"
    done = run_from_scratch([sys.executable, "-c", code], FA4_PRECOMPILE_RECORD=str(tmp_path / "r"), HOME=str(tmp_path))
    assert done.code == 0, done.err
    assert "OnMiss.COMPILE" in done.out
    assert str(tmp_path / "r") in done.out
    assert done.err == ""

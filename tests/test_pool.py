"""The fork-server pool: one process a task, and no failure that reaches beyond its task."""

from __future__ import annotations

import importlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NoReturn

import pytest

import pool_tasks
from fa4_precompile.errors import MachineError
from fa4_precompile.precompile.compile import pool as pool_module
from fa4_precompile.precompile.compile.pool import ForkServerPool, TaskFailed, default_jobs

_TESTS = {"PYTHONPATH": str(Path(__file__).parent)}


def _pool(jobs: int = 2, initializer: Callable[..., Any] = pool_tasks.prepare, **options: Any) -> ForkServerPool:
    arguments = ("yes",) if initializer is pool_tasks.prepare else ()
    return ForkServerPool(jobs, initializer, arguments, _TESTS, **options)


def _error(future: Future[Any]) -> TaskFailed:
    error = future.exception(timeout=300)
    assert isinstance(error, TaskFailed)
    return error


def test_tasks_run_in_children_of_their_own_that_find_the_initializers_work() -> None:
    with _pool() as pool:
        answers = [future.result(60) for future in [pool.submit(pool_tasks.prepared) for _ in range(5)]]
    assert {mark for mark, _ in answers} == {"yes"}
    assert len({pid for _, pid in answers} | {os.getpid()}) == 6


def test_children_know_what_those_before_them_had_to_learn_and_nothing_of_those_that_died() -> None:
    with _pool(1, pool_tasks.prepare_to_learn) as pool:
        first, nothing = pool.submit(pool_tasks.known).result(60)
        assert pool.submit(pool_tasks.fall_silent).result(60) == "done"
        _error(pool.submit(pool_tasks.die, int(signal.SIGSEGV)))
        second, learned = pool.submit(pool_tasks.known).result(60)
        third, all_that_is_known = pool.submit(pool_tasks.known).result(60)
    assert (nothing, learned, all_that_is_known) == ([], [first], [first, second])
    assert len({first, second, third}) == 3


def test_environment_sets_and_unsets_variables_of_the_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FA4_TEST_A", "outside")
    monkeypatch.setenv("FA4_TEST_B", "outside")
    environment = {**_TESTS, "FA4_TEST_A": None, "FA4_TEST_C": "set"}
    with ForkServerPool(1, pool_tasks.prepare, ("yes",), environment) as pool:
        answers = [pool.submit(pool_tasks.variable, f"FA4_TEST_{name}").result(60) for name in "ABC"]
    assert answers == [None, "outside", "set"]


def test_as_many_children_run_at_once_as_there_are_workers(tmp_path: Path) -> None:
    with _pool(jobs=3) as pool:
        futures = [pool.submit(pool_tasks.wait_for_company, str(tmp_path), 3) for _ in range(3)]
        assert [future.result(60) for future in futures] == [3, 3, 3]


def test_no_more_children_run_at_once_than_there_are_workers() -> None:
    with _pool(jobs=1) as pool:
        futures = [pool.submit(pool_tasks.sleep, 0.2) for _ in range(3)]
        futures[0].result(60)
        assert sum(future.running() for future in futures) <= 1


def test_task_that_raises_fails_with_its_traceback_and_the_others_go_on() -> None:
    with _pool() as pool:
        bad, good = pool.submit(pool_tasks.fail, "these words"), pool.submit(pool_tasks.sleep, 0)
        assert good.result(60) == 0
        assert _error(bad).reason == "ValueError: these words"
        assert "in fail" in _error(bad).report


@pytest.mark.parametrize("where", ["nowhere", "elsewhere"])
def test_task_that_can_not_be_sent_fails_alone(where: str) -> None:
    with _pool(jobs=1) as pool:
        bad = [pool.submit(pool_tasks.echo, pool_tasks.Unwelcome(where)) for _ in range(3)]
        good = pool.submit(pool_tasks.echo, b"after")
        assert all("LookupError: this" in _error(future).reason for future in bad)
        assert all("in __reduce__" in _error(f).report or "in _welcome" in _error(f).report for f in bad)
        assert good.result(60) == b"after"
        assert pool.submit(pool_tasks.echo, b"later").result(60) == b"later"


@pytest.mark.parametrize("where", ["nowhere", "elsewhere"])
def test_answer_that_can_not_be_sent_or_read_fails_alone(where: str) -> None:
    with _pool(jobs=1) as pool:
        bad = [pool.submit(pool_tasks.unwelcome, where) for _ in range(3)]
        good = pool.submit(pool_tasks.echo, b"after")
        assert all("LookupError: this" in _error(future).reason for future in bad)
        assert good.result(60) == b"after"


def test_function_that_the_workers_can_not_import_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_here.py").write_text("def answer():\n    return 42\n")
    monkeypatch.syspath_prepend(tmp_path)
    answer = importlib.import_module("only_here").answer
    with _pool(jobs=1) as pool:
        assert "ModuleNotFoundError" in _error(pool.submit(answer)).reason
        assert pool.submit(pool_tasks.echo, b"after").result(60) == b"after"


def test_initializer_that_can_not_be_sent_fails_every_task() -> None:
    with ForkServerPool(1, pool_tasks.prepare, (pool_tasks.Unwelcome("nowhere"),), _TESTS) as pool:
        for future in [pool.submit(pool_tasks.echo, b"") for _ in range(2)]:
            with pytest.raises(MachineError, match="this stays here"):
                future.result(60)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_child_that_is_killed_fails_its_task_with_the_signal_and_its_last_words(number: signal.Signals) -> None:
    with _pool() as pool:
        bad, good = pool.submit(pool_tasks.die, number), pool.submit(pool_tasks.sleep, 0)
        assert good.result(60) == 0
        assert f"killed by {number.name}" in _error(bad).reason
        assert "falling" in _error(bad).report


def test_child_that_leaves_without_a_result_fails_its_task_with_the_exit_code() -> None:
    with _pool() as pool:
        assert "exit code 3" in _error(pool.submit(pool_tasks.leave, 3)).reason


def test_task_over_its_time_limit_is_killed_and_the_others_go_on() -> None:
    with _pool(time_limits={pool_tasks.sleep: 1.0}) as pool:
        slow, good = pool.submit(pool_tasks.sleep, 600), pool.submit(pool_tasks.sleep, 0)
        assert good.result(60) == 0
        assert "time limit of 1 s" in _error(slow).reason


def test_result_larger_than_a_pipe_arrives_whole() -> None:
    with _pool() as pool:
        assert len(pool.submit(pool_tasks.large, 20_000_000).result(60)) == 20_000_000


def test_initializer_that_raises_our_error_gives_that_error_to_every_task() -> None:
    with _pool(initializer=pool_tasks.refuse) as pool:
        with pytest.raises(MachineError, match="nothing works here") as caught:
            pool.submit(pool_tasks.sleep, 0).result(60)
        assert caught.value.hint == "try another machine"


def test_fork_server_that_dies_early_fails_every_task_with_its_last_words() -> None:
    with _pool(initializer=pool_tasks.crash_early) as pool:
        with pytest.raises(MachineError, match="exit code 7") as caught:
            pool.submit(pool_tasks.sleep, 0).result(60)
        assert "the last words" in str(caught.value)


def test_shutdown_that_cancels_ends_the_children_that_run(tmp_path: Path) -> None:
    pool = _pool()
    running = pool.submit(pool_tasks.wait_for_company, str(tmp_path), 99)
    while not list(tmp_path.iterdir()):
        pass
    child = int(next(tmp_path.iterdir()).name)
    pool.shutdown(wait=False, cancel_futures=True)
    assert running.done()
    assert not Path(f"/proc/{child}").exists()
    with pytest.raises(RuntimeError, match="shut down"):
        pool.submit(pool_tasks.sleep, 0)


@pytest.mark.parametrize(("cores", "memory", "jobs"), [(8, 4.6e9, 3), (2, 64e9, 2), (4, 0.1e9, 1)])
def test_default_jobs_is_what_cores_and_memory_allow(
    monkeypatch: pytest.MonkeyPatch, cores: int, memory: float, jobs: int
) -> None:
    monkeypatch.setattr(pool_module, "cores", lambda: cores)
    monkeypatch.setattr(pool_module, "free_memory", lambda: int(memory))
    assert default_jobs() == jobs


def _temporary_files(folder: Path, pools: Path) -> list[Path]:
    """Return what `leave_files` has told of itself, once it has."""
    told = folder / "told"
    while not told.exists():
        time.sleep(0.01)
    paths = [Path(line) for line in told.read_text().splitlines()]
    assert all(path.exists() and path.is_relative_to(pools) for path in paths)
    return paths


def test_temporary_files_of_workers_that_are_killed_do_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    pool = _pool()
    pool.submit(pool_tasks.leave_files, str(tmp_path), "told")
    assert len(_temporary_files(tmp_path, tmp_path / "tmp")) == 2
    pool.shutdown(wait=False, cancel_futures=True)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_temporary_files_do_not_stay_when_the_fork_server_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    with _pool() as pool:
        left = pool.submit(pool_tasks.leave_files, str(tmp_path), "told")
        _temporary_files(tmp_path, tmp_path / "tmp")
        os.kill(pool.submit(os.getppid).result(60), signal.SIGKILL)
        with pytest.raises(MachineError, match="exit code -9"):
            left.result(60)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_process_that_a_task_runs_ends_with_it(tmp_path: Path) -> None:
    pool = _pool()
    pool.submit(pool_tasks.run_another, str(tmp_path / "pid"))
    while not (tmp_path / "pid").exists() or not (other := (tmp_path / "pid").read_text()):
        time.sleep(0.01)
    pool.shutdown(wait=False, cancel_futures=True)
    while _is_alive(int(other)):
        time.sleep(0.01)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class _Stopped(BaseException):
    """What a signal's handler raises."""


@pytest.mark.chance
def test_pool_interrupted_at_any_moment_leaks_no_descriptor_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attempt: int
) -> None:
    def stop(_number: int, _frame: object) -> NoReturn:
        raise _Stopped

    def use() -> None:
        with _pool() as pool:
            pool.submit(pool_tasks.echo, b"").result(60)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    use()
    descriptors = len(os.listdir("/proc/self/fd"))
    moments, interrupted = random.Random(attempt), 0
    before = signal.signal(signal.SIGALRM, stop)
    try:
        for _ in range(100):
            try:
                signal.setitimer(signal.ITIMER_REAL, moments.uniform(1e-6, 0.005))  # most of them while it starts
                use()
                signal.setitimer(signal.ITIMER_REAL, 0)
            except _Stopped:
                interrupted += 1
    finally:
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 50
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert list(tmp_path.iterdir()) == []


_INTERRUPTED_AT_THE_END = """
import os, signal, sys
from pathlib import Path
import pool_tasks
from fa4_precompile.precompile.compile.pool import ForkServerPool

def interrupt(*_):
    raise KeyboardInterrupt

pool = ForkServerPool(1, pool_tasks.sleep, (600.0,), {"PYTHONPATH": os.environ["PYTHONPATH"]})
pool.start()
while not (folders := list(Path(os.environ["TMPDIR"]).glob("fa4-precompile-*"))):
    pass
for number in range(20_000):  # so that it takes a while to remove them
    (folders[0] / str(number)).touch()
signal.signal(signal.SIGALRM, interrupt)
signal.setitimer(signal.ITIMER_REAL, 0.02)
try:
    pool.shutdown(cancel_futures=True)
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_shutdown_that_is_interrupted_is_done_when_the_process_ends(tmp_path: Path) -> None:
    environment = {**os.environ, **_TESTS, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", _INTERRUPTED_AT_THE_END], env=environment, timeout=300, check=False)
    assert done.returncode == 130
    assert list(tmp_path.iterdir()) == []


def test_large_arguments_and_large_results_at_once_do_not_block_each_other() -> None:
    with _pool() as pool:
        futures = [pool.submit(pool_tasks.echo, bytes(2_000_000)) for _ in range(8)]
        assert [len(future.result(60)) for future in futures] == [2_000_000] * 8


def test_shutdown_while_the_initializer_works_does_not_wait_for_it() -> None:
    pool = ForkServerPool(1, pool_tasks.prepare_for_ever, (), _TESTS)
    future = pool.submit(pool_tasks.sleep, 0)
    pool.shutdown(wait=False, cancel_futures=True)
    assert future.done()


def test_variables_that_match_a_pattern_are_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FA4_TEST_X", "outside")
    monkeypatch.setenv("FA4_TEST_Y", "outside")
    with ForkServerPool(1, pool_tasks.prepare, ("yes",), {**_TESTS, "FA4_TEST_*": None, "FA4_TEST_Y": "in"}) as pool:
        answers = [pool.submit(pool_tasks.variable, f"FA4_TEST_{name}").result(60) for name in "XY"]
    assert answers == [None, "in"]

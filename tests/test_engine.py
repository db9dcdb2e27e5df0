"""What `--executor` names, and what one worker of an engine says to an errand, each in a process of its own or here."""

from __future__ import annotations

import pickle
import signal
import time
import warnings
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, Status
from distributed.deploy.spec import SpecCluster

from fa4_precompile.errors import MachineError, UsageError
from fa4_precompile.precompile.compile.worker import Pinned, ask
from fa4_precompile.precompile.engines import worker as worker_module
from fa4_precompile.precompile.engines.engine import open_engine
from fa4_precompile.precompile.engines.errand import Done, Errand, Kit, TurnedDown, digested
from fa4_precompile.precompile.engines.ourselves import ourselves
from fa4_precompile.precompile.engines.worker import Worker, run
from fa4_precompile.precompile.spec.sources import module_digest
from fa4_precompile.providers.installed import installed_toolchain
from fa4_precompile.providers.registry import DEFAULT
from product import run as run_command
from support import make_target


def two_threads() -> Executor:
    return ThreadPoolExecutor(2)


def two_processes() -> Executor:
    return ProcessPoolExecutor(2)


def nothing() -> None:
    """Give no executor."""


def broken() -> Executor:
    raise ConnectionError("nobody there")


def leaving() -> Executor:
    raise SystemExit(7)


class _Unknown(Executor):
    """An executor that does not tell how many workers it has."""


def unknown() -> Executor:
    return _Unknown()


class _Stubborn(ThreadPoolExecutor):
    """An executor that can't cancel, as Parsl's, and can't be shut down, as one that is broken."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait)
        warnings.warn("Canceling on-going tasks is not supported", stacklevel=2)
        raise RuntimeError("broken")


def stubborn() -> Executor:
    return _Stubborn(1)


def deaf() -> Executor:
    """Take the signals, as Dask-Jobqueue does when it is imported."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    return ThreadPoolExecutor(1)


def dask_client() -> Client:
    return Client(n_workers=1, threads_per_worker=3, processes=False, dashboard_address=":0", set_as_default=False)


@pytest.mark.parametrize(("factory", "workers"), [("two_threads", 2), ("two_processes", 2), ("unknown", None)])
def test_engine_of_a_factory_says_how_many_workers_it_has_if_its_executor_does(
    factory: str, workers: int | None
) -> None:
    engine = open_engine(f"{__name__}:{factory}")
    assert engine.workers() == workers
    engine.close()


def test_call_is_made_by_the_executor() -> None:
    engine = open_engine(f"{__name__}:two_threads")
    assert engine.submit(pow, (2, 5), ()).result(60) == 32
    engine.close()


def test_executor_that_complains_at_its_end_does_so_in_silence(recwarn: pytest.WarningsRecorder) -> None:
    engine = open_engine(f"{__name__}:stubborn")
    engine.close()
    assert [str(warning.message) for warning in recwarn] == []


def test_factory_does_not_take_the_signals_of_the_build() -> None:
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in signals]
    engine = open_engine(f"{__name__}:deaf")
    after = [signal.getsignal(number) for number in signals]
    for number, handler in zip(signals, before, strict=True):
        signal.signal(number, handler)
    engine.close()
    assert after == before


def test_engine_of_a_dask_client_knows_its_workers_and_ends_its_cluster() -> None:
    engine = open_engine(f"{__name__}:dask_client")
    assert (engine.workers(), engine.is_lost()) == (3, False)
    assert engine.submit(pow, (2, 5), ()).result(60) == 32
    engine.close()
    assert engine.is_lost()
    assert [cluster for cluster in SpecCluster._instances if cluster.status is not Status.closed] == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("here", "names no engine"),
        ("ray://head:10001", "names no engine"),
        ("dask://", "names no engine"),
        (":factory", "names no engine"),
        ("no_such_module:factory", "No module named"),
        (".relative:factory", "TypeError"),
        (f"{__name__}:no_such_factory", "no_such_factory"),
        (f"{__name__}:nothing", "gives a `NoneType`"),
    ],
)
def test_name_of_no_engine_is_a_mistake_of_the_command_line(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as error:
        open_engine(name)
    assert error.value.hint


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (f"{__name__}:broken", "ConnectionError: nobody there"),
        (f"{__name__}:leaving", "SystemExit: 7"),
        ("dask://127.0.0.1:1", "no Dask scheduler answers"),
        ("dask:///no/file", "there is no scheduler file"),
    ],
)
def test_engine_that_is_not_there_is_a_matter_of_the_machine(
    name: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fa4_precompile.precompile.engines.dask._CONNECT_S", 0.5)
    with pytest.raises(MachineError, match=words):
        open_engine(name)


def test_workers_publish_without_an_engine_is_a_mistake(tmp_path: Path) -> None:
    done = run_command("build", "quickstart", "--cache", tmp_path, "--workers-publish")
    assert (done.code, done.out) == (2, "")
    assert "`--workers-publish` is about the workers of `--executor`" in done.err


# One worker

_KIT = Kit(Pinned(DEFAULT, make_target()), installed_toolchain(DEFAULT))


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long workers would have waited."""
    found: list[float] = []
    monkeypatch.setattr(time, "sleep", found.append)
    return found


def _turned_down(kit: Kit, theirs: str = "", not_at: tuple[str, ...] = ()) -> str:
    errand = pickle.dumps(Errand(kit, (), ask, ()))
    answer = Worker().run(theirs or ourselves(), errand, not_at)
    assert isinstance(answer, TurnedDown), answer
    return answer.reason


def test_worker_with_another_version_of_us_does_not_even_read_the_errand(pauses: list[float]) -> None:
    answer = run("0123456789ab", b"no pickle at all", ())
    assert isinstance(answer, TurnedDown)
    assert answer.reason == f"the source of fa4-precompile is {ourselves()} there, 0123456789ab here"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"traced_libraries": {"quack": "0" * 64}}, "traced_libraries.quack is `"),
        ({"tvm_ffi": "0.0.1"}, "tvm_ffi is `"),
        ({"environment": {"CUTE_DSL_OPT": "3"}}, "environment.CUTE_DSL_OPT is absent there, `3` here"),
    ],
)
def test_worker_with_another_toolchain_says_which_field_differs(
    changes: dict[str, Any], words: str, pauses: list[float]
) -> None:
    assert words in _turned_down(replace(_KIT, toolchain=replace(_KIT.toolchain, **changes)))


def test_worker_with_another_source_of_a_specs_function_says_which_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    (tmp_path / "masks_of_mine.py").write_text("def mask(): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    kit = replace(_KIT, sources={"masks_of_mine": module_digest("masks_of_mine")})
    (tmp_path / "masks_of_mine.py").write_text("def mask(): return 1\n")
    assert _turned_down(kit) == "module `masks_of_mine` is another there"


def test_worker_for_another_kind_of_host_says_so(pauses: list[float]) -> None:
    reason = _turned_down(replace(_KIT, pinned=Pinned(DEFAULT, make_target(machine="riscv64"))))
    assert "riscv64 hosts" in reason


def test_worker_that_has_to_turn_down_waits_longer_and_longer(pauses: list[float]) -> None:
    worker = Worker()
    for _ in range(6):
        worker.run("another", b"", ())
    assert pauses == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


def test_worker_that_is_not_meant_says_so_without_a_reason(pauses: list[float]) -> None:
    assert _turned_down(_KIT, not_at=(worker_module._name(),)) == ""


def test_answer_with_another_byte_is_not_whole() -> None:
    done = Done("a:1", *digested([1, 2, 3]))
    assert done.is_whole()
    assert not replace(done, value=done.value[:-1] + b"!").is_whole()

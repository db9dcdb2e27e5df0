"""The near side of an engine: what it does with each kind of answer, and with none. The engine is a scripted one."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Any

import pytest

from fa4_precompile.errors import MachineError, ProductError
from fa4_precompile.precompile.compile.pool import TaskFailed
from fa4_precompile.precompile.compile.worker import Pinned
from fa4_precompile.precompile.engines import pool as pool_module
from fa4_precompile.precompile.engines.engine import Engine
from fa4_precompile.precompile.engines.errand import Done, Errand, Kit, TurnedDown, Undone, digested
from fa4_precompile.precompile.engines.pool import EnginePool, PlacedFuture
from fa4_precompile.providers.registry import DEFAULT
from support import make_target, make_toolchain

_Answer = Done | Undone | TurnedDown | BaseException | None
"""What a worker answers; None: nothing, ever."""


def square(number: int) -> int:
    """Stand for what a worker would call."""
    return number * number


def done(where: str, errand: Errand) -> Done:
    return Done(where, *digested(errand.function(*errand.arguments)))


class _Scripted(Executor):
    """An engine whose answers are the test's: by the number of the try, and the errand."""

    def __init__(self, answer: Callable[[int, Errand, Sequence[str]], _Answer]) -> None:
        self._answer = answer
        self.tries = 0
        self.out: list[Future[Any]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        _, data, not_at = args
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        self.tries += 1
        answer = self._answer(self.tries, pickle.loads(data), not_at)
        self.out.append(future)
        if isinstance(answer, BaseException):
            future.set_exception(answer)
        elif answer is not None:
            future.set_result(answer)
        return future


_KIT = Kit(Pinned(DEFAULT, make_target()), make_toolchain())


@contextmanager
def _pool(
    executor: Executor, workers: int | None = 2, is_lost: bool = False, most: int | None = None, **options: Any
) -> Iterator[tuple[EnginePool, list[str]]]:
    said: list[str] = []

    def submit(function: Callable[..., Any], arguments: tuple[Any, ...], not_at: Collection[str]) -> Future[Any]:
        return executor.submit(function, *arguments)

    engine = Engine("an engine", submit, lambda: workers, lambda: is_lost, lambda: None)
    made = EnginePool(engine, options.pop("kit", _KIT), most, options.pop("checks", {}), {}, said.append)
    try:
        yield made, said
    finally:
        made.shutdown()


def _error(future: Future[Any]) -> BaseException:
    error = future.exception(timeout=60)
    assert error is not None
    return error


def test_answer_comes_with_the_worker_that_gave_it() -> None:
    with _pool(_Scripted(lambda _, errand, __: done("a:1", errand))) as (pool, said):
        future = pool.executor(()).submit(square, 7)
        assert future.result(60) == 49
        assert isinstance(future, PlacedFuture)
        assert (future.where, said) == ("a:1", [])


def test_flipped_byte_is_told_of_and_made_good_by_another_worker() -> None:
    def answer(number: int, errand: Errand, not_at: Sequence[str]) -> _Answer:
        if "a:1" in not_at:
            return done("b:2", errand)
        made = done("a:1", errand)
        flipped = bytearray(made.value)
        flipped[len(flipped) // 2] ^= 1
        return Done("a:1", bytes(flipped), made.digest)

    with _pool(_Scripted(answer)) as (pool, said):
        assert pool.executor(()).submit(square, 7).result(60) == 49
    assert len(said) == 1
    assert said[0].startswith("worker a:1 has sent what can't be true")


def test_answer_that_does_not_bear_a_look_is_asked_for_elsewhere_and_fails_in_the_end_with_its_cause() -> None:
    asked: list[Sequence[str]] = []

    def answer(number: int, errand: Errand, not_at: Sequence[str]) -> _Answer:
        asked.append(not_at)
        return done(f"w:{number}", errand)

    def check(value: int, arguments: tuple[int]) -> None:
        assert arguments == (7,)
        raise ProductError("49 is too much")

    with _pool(_Scripted(answer), checks={square: check}) as (pool, _):
        error = _error(pool.executor(()).submit(square, 7))
    assert isinstance(error, TaskFailed)
    assert "49 is too much" in error.reason
    assert [len(not_at) for not_at in asked] == [0, 1, 2, 3, 4]


def test_task_that_fails_alike_on_two_workers_fails() -> None:
    engine = _Scripted(lambda number, _, __: Undone(f"w:{number}", "ValueError: no", "the traceback"))
    with _pool(engine) as (pool, _):
        error = _error(pool.executor(()).submit(square, 7))
    assert isinstance(error, TaskFailed)
    assert (error.reason, error.report, engine.tries) == ("ValueError: no", "the traceback", 2)


def test_task_that_one_worker_fails_is_done_by_another() -> None:
    def answer(number: int, errand: Errand, not_at: Sequence[str]) -> _Answer:
        return done("b:2", errand) if "a:1" in not_at else Undone("a:1", "OSError: disk full", "")

    with _pool(_Scripted(answer)) as (pool, _):
        assert pool.executor(()).submit(square, 7).result(60) == 49


def test_worker_that_is_not_fit_is_named_once_and_costs_no_try() -> None:
    def answer(number: int, errand: Errand, not_at: Sequence[str]) -> _Answer:
        return TurnedDown("odd:9", "quack is 1 there, 2 here") if number % 10 else done("a:1", errand)

    with _pool(_Scripted(answer)) as (pool, said):
        assert pool.executor(()).submit(square, 1).exception(60) is not None  # nobody is known to be fit yet
    with _pool(_Scripted(lambda n, errand, _: done("a:1", errand) if n == 1 else answer(n, errand, ()))) as (
        pool,
        said,
    ):
        assert pool.executor(()).submit(square, 2).result(60) == 4
        assert pool.executor(()).submit(square, 3).result(60) == 9
    assert said == ["worker odd:9 gets no work: quack is 1 there, 2 here"]


def test_no_worker_that_is_fit_ends_the_build_with_all_that_differs() -> None:
    engine = _Scripted(lambda number, _, __: TurnedDown(f"w:{number % 2}", f"{number % 2} there"))
    with _pool(engine) as (pool, _):
        futures = [pool.executor(()).submit(square, number) for number in range(3)]
        errors = [_error(future) for future in futures]
    assert all(isinstance(error, MachineError) for error in errors)
    assert "w:0: 0 there" in str(errors[0])
    assert "w:1: 1 there" in str(errors[0])


def test_worker_that_is_lost_costs_a_try_and_a_task_that_loses_all_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_PAUSES_S", (0.0,))
    once = _Scripted(lambda number, errand, _: done("a:1", errand) if number > 1 else ConnectionError("gone"))
    with _pool(once) as (pool, _):
        assert pool.executor(()).submit(square, 7).result(60) == 49
    always = _Scripted(lambda number, errand, _: ConnectionError("gone"))
    with _pool(always) as (pool, _):
        error = _error(pool.executor(()).submit(square, 7))
    assert isinstance(error, TaskFailed)
    assert error.reason == "a worker was lost: ConnectionError: gone"
    assert always.tries == 5


def test_engine_that_is_lost_fails_all_that_is_out_and_all_that_comes() -> None:
    engine = _Scripted(lambda number, errand, _: ConnectionError("gone") if errand.arguments == (1,) else None)
    with _pool(engine, is_lost=True) as (pool, _):
        waiting = pool.executor(()).submit(square, 0)
        lost = pool.executor(()).submit(square, 1)
        for future in (lost, waiting, pool.executor(()).submit(square, 2)):
            error = _error(future)
            assert isinstance(error, MachineError)
            assert str(error) == "`an engine` is lost: a worker was lost: ConnectionError: gone"
            assert "the next build goes on from there" in error.hint


def test_engine_that_takes_nothing_more_is_lost() -> None:
    class _Broken(_Scripted):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            if self.tries:
                raise RuntimeError("cannot schedule new futures after shutdown")
            return super().submit(fn, *args, **kwargs)

    with _pool(_Broken(lambda _, __, ___: None)) as (pool, _):
        futures = [pool.executor(()).submit(square, number) for number in range(2)]
        assert ["is lost" in str(_error(future)) for future in futures] == [True, True]


def test_worker_that_never_answers_is_given_up_and_another_one_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_LOOK_S", 0.05)
    monkeypatch.setattr(pool_module, "_GRACE_S", 0.2)
    kit = Kit(_KIT.pinned, _KIT.toolchain, {}, {square: 0.1})
    engine = _Scripted(lambda number, errand, _: None if number == 1 else done("b:2", errand))
    with _pool(engine, kit=kit) as (pool, _):
        assert pool.executor(()).submit(square, 7).result(60) == 49


class _Uncancellable(Future[Any]):
    def cancel(self) -> bool:
        raise NotImplementedError("Cancel not implemented")


def test_engine_whose_calls_cannot_be_cancelled_is_left_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.Future", _Uncancellable)  # of the scripted engine: Parsl's do so
    monkeypatch.setattr(pool_module, "_LOOK_S", 0.05)
    monkeypatch.setattr(pool_module, "_GRACE_S", 0.2)
    kit = Kit(_KIT.pinned, _KIT.toolchain, {}, {square: 0.1})
    engine = _Scripted(lambda number, errand, _: None if number == 1 else done("b:2", errand))
    with _pool(engine, kit=kit) as (pool, _):
        assert pool.executor(()).submit(square, 7).result(60) == 49
    assert isinstance(engine.out[0], _Uncancellable)


@pytest.mark.parametrize(("workers", "most", "jobs"), [(None, None, 1), (None, 8, 8), (4, 8, 4), (4, 2, 2), (0, 8, 1)])
def test_as_many_run_as_the_engine_has_workers_and_gets_or_just_gets(
    workers: int | None, most: int | None, jobs: int
) -> None:
    with _pool(_Scripted(lambda *_: None), workers=workers, most=most) as (pool, _):
        assert pool.jobs == jobs


class _Clock:
    """The pool's time, which goes on when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_task_that_waits_for_its_turn_is_not_late(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, looked = _Clock(), threading.Semaphore(0)
    monkeypatch.setattr(pool_module, "time", clock)
    monkeypatch.setattr(pool_module, "_LOOK_S", 0.02)
    monkeypatch.setattr(pool_module, "_GRACE_S", 50.0)

    class _Watched(EnginePool):
        def _look(self) -> None:
            super()._look()
            looked.release()

    monkeypatch.setattr(f"{__name__}.EnginePool", _Watched)
    kit = Kit(_KIT.pinned, _KIT.toolchain, {}, {square: 50.0})
    engine = _Scripted(lambda number, errand, _: None)
    with _pool(engine, workers=1, kit=kit) as (pool, _):
        futures = [pool.executor(()).submit(square, number) for number in range(4)]
        for number, future in enumerate(futures):  # one after another, each just in time; together they are late
            while not future.running():
                time.sleep(0.01)
            clock.now += 90
            assert looked.acquire(timeout=60)
            engine.out[number].set_result(done("a:1", Errand(kit, (), square, (number,))))
            assert future.result(60) == number * number
        assert engine.tries == 4


def test_slow_task_is_begun_again_where_a_worker_is_idle_and_the_first_answer_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool_module, "_LOOK_S", 0.05)
    monkeypatch.setattr(pool_module, "_SLOW_S", 0.2)

    def answer(number: int, errand: Errand, _: Sequence[str]) -> _Answer:
        return None if errand.arguments == (7,) and number == 2 else done(f"w:{number}", errand)

    with _pool(_Scripted(answer)) as (pool, _):
        assert pool.executor(()).submit(square, 1).result(60) == 1
        slow = pool.executor(()).submit(square, 7)
        assert slow.result(60) == 49
        assert isinstance(slow, PlacedFuture)
        assert slow.where == "w:3"


def test_no_more_is_given_at_a_time_than_is_said() -> None:
    started = threading.Semaphore(0)

    def answer(number: int, errand: Errand, _: Sequence[str]) -> _Answer:
        started.release()
        return None

    engine = _Scripted(answer)
    with _pool(engine, workers=None, most=2) as (pool, _):
        futures = [pool.executor(()).submit(square, number) for number in range(5)]
        for number, future in enumerate(futures):
            assert started.acquire(timeout=60)
            assert len(engine.out) - number <= 2
            while len(engine.out) <= number:
                time.sleep(0.01)
            engine.out[number].set_result(done("a:1", Errand(_KIT, (), square, (number,))))
            assert future.result(60) == number * number


def test_pool_that_is_shut_down_fails_what_is_out() -> None:
    with _pool(_Scripted(lambda *_: None)) as (pool, _):
        future = pool.executor(()).submit(square, 7)
    assert str(_error(future)) == "the build was stopped"


def test_engine_that_is_lost_while_more_waits_fails_that_and_all_that_comes() -> None:
    class _Broken(_Scripted):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            if self.tries:
                raise RuntimeError("cannot schedule new futures after shutdown")
            return super().submit(fn, *args, **kwargs)

    engine = _Broken(lambda _, __, ___: None)
    with _pool(engine, most=1) as (pool, _):
        futures = [pool.executor(()).submit(square, number) for number in range(4)]
        while not engine.out:
            time.sleep(0.01)
        engine.out[0].set_result(done("a:1", Errand(_KIT, (), square, (0,))))
        assert futures[0].result(60) == 0
        for future in (*futures[1:], pool.executor(()).submit(square, 4)):
            assert "is lost" in str(_error(future))


class _Pending(_Scripted):
    """An engine whose calls have not begun, as far as it tells: Dask's can be cancelled though they run."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.tries += 1
        return Future()


def test_try_that_is_given_up_counts_once_though_it_can_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_LOOK_S", 0.02)
    monkeypatch.setattr(pool_module, "_GRACE_S", 0.0)
    monkeypatch.setattr(pool_module, "_PAUSES_S", (0.1,))
    engine = _Pending(lambda *_: None)
    with _pool(engine, kit=Kit(_KIT.pinned, _KIT.toolchain, {}, {square: 0.1})) as (pool, _):
        assert "no worker has answered" in str(_error(pool.executor(()).submit(square, 7)))
    assert engine.tries == 5


class _Speechless(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (SystemExit(3), "a worker was lost: SystemExit: 3"),
        (_Speechless(), "a worker was lost: _Speechless"),
        (ValueError("x" * 10_000_000), f"a worker was lost: ValueError: {'x' * 488}..."),
        ("odd", "the engine has answered with a `str`"),
    ],
)
def test_answer_of_any_kind_ends_a_future(answer: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_PAUSES_S", (0.0,))
    with _pool(_Scripted(lambda *_: answer)) as (pool, _):
        error = _error(pool.executor(()).submit(square, 7))
    assert isinstance(error, TaskFailed)
    assert error.reason == words


@pytest.mark.parametrize("answer", [SystemExit(5), None])
def test_engine_that_gives_no_future_is_lost_for_all_that_waits(answer: BaseException | None) -> None:
    class _Odd(_Scripted):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            if answer is not None:
                raise answer
            return None  # type: ignore[return-value]

    with _pool(_Odd(lambda *_: None)) as (pool, _):
        for number in range(3):
            assert "is lost" in str(_error(pool.executor(()).submit(square, number)))


def test_engine_that_does_not_let_go_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_MOST_SECONDS_TO_END", 0.1)
    let_go = threading.Event()

    def stuck(*_: object) -> Any:
        let_go.wait(60)

    submit: Any = stuck
    engine = Engine("an engine", submit, lambda: 1, lambda: False, stuck)
    pool = EnginePool(engine, _KIT, None, {}, {}, lambda _: None)
    pool.executor(()).submit(square, 7)
    start = time.monotonic()
    pool.shutdown()
    assert time.monotonic() - start < 30
    assert not let_go.is_set()
    let_go.set()


def test_engine_that_is_lost_before_it_is_asked_is_no_traceback() -> None:
    def lost() -> int:
        raise OSError("gone")

    closed = threading.Event()
    engine = Engine("an engine", lambda *_: Future(), lost, lambda: True, closed.set)
    with pytest.raises(MachineError, match="`an engine` is lost: OSError: gone"):
        EnginePool(engine, _KIT, None, {}, {}, lambda _: None)
    assert closed.wait(60)


def test_words_that_nobody_reads_end_no_build() -> None:
    def answer(number: int, errand: Errand, _: Sequence[str]) -> _Answer:
        return TurnedDown("odd:9", "quack is 1 there") if number == 1 else done("a:1", errand)

    engine = _Scripted(answer)

    def broken_pipe(_words: str) -> None:
        raise BrokenPipeError

    made = EnginePool(
        Engine("an engine", lambda fn, args, _: engine.submit(fn, *args), lambda: 2, lambda: False, lambda: None),
        _KIT,
        None,
        {},
        {},
        broken_pipe,
    )
    assert made.executor(()).submit(square, 7).result(60) == 49
    made.shutdown()

"""The near side of an engine: gives errands to it, and takes no answer for true that does not bear a look.

Guarantees
    A future ends: with the answer of a worker that has the kit, whole and checked, or with the reason why there is
    none. A worker that is lost, late or wrong costs a try elsewhere; one that has not the kit is named, and costs none.
Not guaranteed
    That a call is made once: what seemed lost may have been late. Calls that compile can be made twice.
"""

from __future__ import annotations

import itertools
import pickle
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from ...errors import Fa4PrecompileError, MachineError, ProductError
from ...providers.call import Environment
from ..compile.pool import TaskFailed
from .engine import Engine, close_within, heard_or_not, words_of
from .errand import Done, Errand, Kit, Then, TurnedDown, Undone
from .ourselves import ourselves
from .worker import run

T = TypeVar("T")

_LOOK_S = 1.0
_ASK_S = 5.0
"""How often the engine is asked for the number of its workers."""

_MOST_TRIES = 5
_MOST_FAILURES = 2
"""A task that has failed on so many workers fails: its own fault, not theirs."""

_MOST_TURNED_DOWN = 12
_MOST_IF_NONE_FITS = 5
_PAUSES_S = (0.0, 0.5, 2.0, 5.0, 10.0)
"""Before each further try after a worker was lost: what was wrong with it may be so for the next moment, too."""

_LONGEST_S = 900.0
_GRACE_S = 60.0
"""A worker answers when a task's time is over. If it does not, for so long, it is taken for lost."""

_MOST_SECONDS_TO_END = 4.0
"""For what an engine is doing with us, and then for closing it: it may wait for a machine that is gone."""

_SLOW_S = 60.0
_SLOW_FACTOR = 4.0
"""If a worker is idle, a task that has run for longer than this, and than so many times the longest, is begun again."""


class PlacedFuture(Future[T]):
    """A future that says which worker the answer comes from, once it is there."""

    where: str = ""


@dataclass(eq=False)
class _Sent:
    """A try: an errand that the engine has."""

    order: _Order
    answer: Future[Done | Undone | TurnedDown]
    started: float | None = None


@dataclass(eq=False)
class _Order:
    errand: Errand
    future: PlacedFuture[Any]
    data: bytes = b""
    tries: int = 0
    failures: int = 0
    turned_down: int = 0
    not_at: tuple[str, ...] = ()
    last: TaskFailed | None = None
    due: float = 0.0
    out: list[_Sent] = field(default_factory=list)


class EnginePool:
    """Gives calls to an engine. `executor` is where they are handed in.

    One thread has all that changes; who hands in and the engine's threads leave word in its queue.

    Args:
        engine: is closed at the end.
        kit: what a worker must have.
        most: how many calls the engine gets at a time; None: all.
        checks: what looks at an answer, by the function that was called; gets the answer and the arguments, and raises
            an error of this package for one that can't be true.
        then: what a worker does with the answer of a function, instead of sending it.
        say: is told, by the pool's thread, of workers that are lost, wrong or not fit.
    """

    def __init__(
        self,
        engine: Engine,
        kit: Kit,
        most: int | None,
        checks: Mapping[Callable[..., Any], Callable[[Any, tuple[Any, ...]], None]],
        then: Mapping[Callable[..., Any], Then],
        say: Callable[[str], None],
    ) -> None:
        self._engine = engine
        self._kit = kit
        self._most = most
        self._checks = checks
        self._then = then
        self._say = heard_or_not(say)
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._waiting: deque[_Order] = deque()
        self._sent: dict[_Sent, None] = {}
        self._unfit: dict[str, str] = {}
        self._fit: set[str] = set()
        self._longest: dict[Callable[..., Any], float] = {}
        self._workers: int | None = self._number_of_workers()
        self._asked = self._looked = time.monotonic()
        self._closing = self._has_said_waiting = False
        self._broken: Fa4PrecompileError | None = None
        self._thread = threading.Thread(target=self._run, name="engine-pool", daemon=True)
        self._thread.start()

    @property
    def jobs(self) -> int:
        """How many calls run at a time, at least 1. If the engine does not tell, it is as many as it gets."""
        return self._running if self._workers is not None else self._most or 1

    @property
    def _running(self) -> int:
        """How many of the calls that were given out run for sure if the engine takes the oldest first, at least 1."""
        return max(1, min(self._workers or 1, self._most or self._workers or 1))

    def executor(self, environment: Environment) -> Executor:
        """Return an executor whose functions run where the provider sees some switches."""
        return _Switched(self, environment)

    def submit(self, environment: Environment, function: Callable[..., T], arguments: tuple[Any, ...]) -> Future[T]:
        """Have a function called, which must be picklable, as its arguments must be, and harmless to call twice."""
        order = _Order(Errand(self._kit, environment, function, arguments, self._then.get(function)), PlacedFuture())
        self._events.put(partial(self._take, order))
        return order.future

    def shutdown(self) -> None:
        """End the connection at once: what has not come back fails. Tasks that were begun elsewhere may go on.

        An engine that does not let go is left to itself.
        """
        self._events.put(self._close)
        self._thread.join(_MOST_SECONDS_TO_END)
        close_within(self._engine, _MOST_SECONDS_TO_END)

    def _number_of_workers(self) -> int | None:
        try:
            return self._engine.workers()
        except Exception as error:
            close_within(self._engine, _MOST_SECONDS_TO_END)
            raise self._gone(words_of(error)) from None

    # What the thread does

    def _run(self) -> None:
        while not self._closing:
            with suppress(queue.Empty):
                self._events.get(timeout=_LOOK_S)()
            if time.monotonic() - self._looked >= _LOOK_S:  # also where something happens all the time
                self._looked = time.monotonic()
                self._look()
            self._send()

    def _take(self, order: _Order) -> None:
        if self._broken is not None:
            self._fail(order, self._broken)
            return
        try:
            order.data = pickle.dumps(order.errand)
        except Exception as error:
            self._fail(order, TaskFailed(f"the task can't be sent: {words_of(error)}", ""))
            return
        self._waiting.append(order)

    def _close(self) -> None:
        self._closing = True
        self._end(MachineError("the build was stopped", ""))

    def _send(self) -> None:
        now = time.monotonic()
        for _ in range(len(self._waiting)):
            if not self._waiting or (self._most is not None and len(self._sent) >= self._most):
                break  # nothing waits any more if the engine was lost meanwhile
            order = self._waiting.popleft()
            if order.due > now:
                self._waiting.append(order)
            elif not order.future.done():
                self._give(order)
        self._mark_started()

    def _give(self, order: _Order) -> None:
        try:
            arguments = (ourselves(), order.data, order.not_at)
            answer = self._engine.submit(run, arguments, {*order.not_at, *self._unfit})
            if not isinstance(answer, Future):
                raise TypeError(f"`submit` gives a `{type(answer).__name__}`, which is no future")
        except BaseException as error:  # shut down or broken: nothing more can be given to it
            self._end(self._gone(words_of(error)), order)
            return
        sent = _Sent(order, answer)
        order.out.append(sent)
        self._sent[sent] = None
        answer.add_done_callback(lambda _: self._events.put(partial(self._answered, sent)))

    def _mark_started(self) -> None:
        """Take note of when the oldest tries began, as far as anybody can know who does not see the workers."""
        now = time.monotonic()
        for sent in list(itertools.islice(self._sent, self._running)):
            if sent.started is None:
                sent.started = now
                future = sent.order.future
                if not future.running() and not future.done() and not future.set_running_or_notify_cancel():
                    self._drop(sent.order)

    def _answered(self, sent: _Sent) -> None:
        self._sent.pop(sent, None)
        order = sent.order
        is_given_up = sent not in order.out
        if not is_given_up:
            order.out.remove(sent)
        if order.future.done():
            return
        try:
            answer: object = sent.answer.result()
        except BaseException as error:  # a worker's, `SystemExit` perhaps: not ours
            answer = error
        if is_given_up and not isinstance(answer, Done):  # it has counted as lost
            return
        match answer:
            case BaseException():
                self._lost(order, f"a worker was lost: {words_of(answer)}")
            case TurnedDown():
                self._turned_down(order, answer)
            case Undone():
                self._failed(order, answer.where, TaskFailed(answer.reason, answer.report))
            case Done():
                self._done(sent, answer)
            case _:
                self._lost(order, f"the engine has answered with a `{type(answer).__name__}`")

    def _done(self, sent: _Sent, answer: Done) -> None:
        order = sent.order
        try:
            if not answer.is_whole():
                raise ProductError("what came back has other bytes than it had where it was made")
            value = pickle.loads(answer.value)
            if check := self._checks.get(order.errand.function):
                check(value, order.errand.arguments)
        except Exception as error:
            reason = str(error) if isinstance(error, Fa4PrecompileError) else words_of(error)
            self._wrong(order, answer.where, reason)
            return
        self._fit.add(answer.where)
        if sent.started is not None:
            function = order.errand.function
            self._longest[function] = max(self._longest.get(function, 0.0), time.monotonic() - sent.started)
        order.future.where = answer.where
        if self._start_future(order):
            order.future.set_result(value)
        self._drop(order)

    def _turned_down(self, order: _Order, answer: TurnedDown) -> None:
        order.turned_down += 1
        if answer.reason and answer.where not in self._unfit:
            self._unfit[answer.where] = answer.reason
            self._say(f"worker {answer.where} gets no work: {answer.reason}")
        if order.turned_down >= _MOST_IF_NONE_FITS and self._unfit and not self._fit:
            told = "; ".join(f"{where}: {reason}" for where, reason in self._unfit.items())
            hint = "install there what is installed here, in the same versions, and start the workers again"
            self._end(MachineError(f"no worker of `{self._engine.title}` can take the work: {told}", hint), order)
        elif order.turned_down < _MOST_TURNED_DOWN:
            self._waiting.appendleft(order)
        elif order.not_at:  # better where it has failed once than nowhere
            order.not_at, order.turned_down = (), 0
            self._waiting.appendleft(order)
        else:
            self._fail(order, order.last or TaskFailed(f"no worker takes it: {answer.reason}", ""))

    def _lost(self, order: _Order, reason: str) -> None:
        if self._engine.is_lost():
            self._end(self._gone(reason), order)
        else:
            self._again(order, "", TaskFailed(reason, ""))

    def _wrong(self, order: _Order, where: str, reason: str) -> None:
        if where not in self._unfit:
            self._unfit[where] = reason
            self._say(f"worker {where} has sent what can't be true, and gets no more work: {reason}")
        self._again(order, where, TaskFailed(f"worker {where}: {reason}", ""))

    def _failed(self, order: _Order, where: str, failure: TaskFailed) -> None:
        self._fit.add(where)
        order.failures += 1
        is_the_same = order.last is not None and order.last.reason == failure.reason
        if order.failures >= _MOST_FAILURES and is_the_same:
            self._fail(order, failure)
        else:
            self._again(order, where, failure)

    def _again(self, order: _Order, where: str, failure: TaskFailed) -> None:
        order.last = failure
        order.tries += 1
        if order.out:  # another try is still on its way
            return
        if order.tries >= _MOST_TRIES:
            self._fail(order, failure)
            return
        order.not_at = tuple({*order.not_at, where} - {""})
        order.due = 0.0 if where else time.monotonic() + _PAUSES_S[min(order.tries, len(_PAUSES_S)) - 1]
        self._waiting.appendleft(order)

    def _look(self) -> None:
        """Look after some time for what has become of tries that don't come back."""
        now = time.monotonic()
        if now - self._asked > _ASK_S:
            self._asked = now
            try:
                self._workers = self._engine.workers()
            except Exception as error:
                if self._engine.is_lost():
                    self._end(self._gone(words_of(error)))
            if self._workers == 0 and self._sent and not self._has_said_waiting:
                self._has_said_waiting = True
                self._say(f"`{self._engine.title}` has no worker yet; waiting for one")
        for sent in list(self._sent):
            if sent.started is None or sent.order.future.done():
                continue
            since = now - sent.started
            function = sent.order.errand.function
            limit = self._kit.time_limits.get(function, _LONGEST_S) + _GRACE_S
            if since > limit:
                self._forget(sent)
                self._lost(sent.order, f"no worker has answered for {limit:.0f} s")
            elif (
                len(sent.order.out) == 1
                and not self._waiting
                and len(self._sent) < self._running
                and since > max(_SLOW_S, _SLOW_FACTOR * self._longest.get(function, since))
            ):
                self._give(sent.order)

    def _forget(self, sent: _Sent) -> None:
        self._sent.pop(sent, None)
        sent.order.out.remove(sent)
        with suppress(Exception):  # Parsl's futures raise
            sent.answer.cancel()

    def _drop(self, order: _Order) -> None:
        """Forget the other tries of what has ended."""
        for sent in list(order.out):
            self._forget(sent)

    def _fail(self, order: _Order, error: Fa4PrecompileError) -> None:
        self._drop(order)
        if self._start_future(order):
            order.future.set_exception(error)

    def _start_future(self, order: _Order) -> bool:
        """Return whether somebody still waits for an answer."""
        future = order.future
        return future.running() or (not future.done() and future.set_running_or_notify_cancel())

    def _end(self, error: Fa4PrecompileError, *others: _Order) -> None:
        """Give up: nothing more comes back of what the engine has, of what waits, or of others."""
        self._broken = error
        orders = {sent.order: None for sent in self._sent} | dict.fromkeys((*self._waiting, *others))
        self._waiting.clear()
        for order in orders:
            self._fail(order, error)

    def _gone(self, reason: str) -> MachineError:
        what = f"`{self._engine.title}` is lost: {reason}"
        return MachineError(what, "what was built is published; the next build goes on from there")


class _Switched(Executor):
    def __init__(self, pool: EnginePool, environment: Environment) -> None:
        self._pool = pool
        self._environment = environment

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Have `fn(*args)` called by a worker. Keyword arguments are not taken."""
        if kwargs:
            raise TypeError("an engine's pool takes positional arguments only")
        return self._pool.submit(self._environment, fn, args)

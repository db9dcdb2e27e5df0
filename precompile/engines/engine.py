"""An engine: who runs calls somewhere else. We know of it what `concurrent.futures.Executor` has, and how many workers.

None is made here. `--executor` names one: `dask://HOST:PORT`, or `module:factory`.
"""

from __future__ import annotations

import importlib
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from ...errors import MachineError, UsageError

T = TypeVar("T")

_MOST_WORDS = 500
"""Letters of an engine's error."""

_HOW = "`dask://HOST:PORT`, or `module:factory` for what gives a `concurrent.futures.Executor` or a Dask `Client`"


class Submit(Protocol):
    """How an engine is given a call."""

    def __call__(self, function: Callable[..., T], arguments: tuple[Any, ...], not_at: Collection[str]) -> Future[T]:
        """Return the future of a call. Raises whatever the engine does if it takes none."""


@dataclass(frozen=True)
class Engine:
    """An engine that is connected.

    Attributes:
        title: what messages call it.
        submit: takes a function and its arguments, and the workers that are not to get them, as answers name them, if
            the engine can choose. Whether it keeps a call or has started it can't be seen.
        workers: asks how many calls run at a time, 0 while nobody is there, None if that can't be known. Asked now and
            then; may take as long as a question to another machine does.
        is_lost: asks whether no call can come back any more, though none has said so.
        close: ends the connection. What was begun elsewhere may go on for a while.
    """

    title: str
    submit: Submit
    workers: Callable[[], int | None]
    is_lost: Callable[[], bool]
    close: Callable[[], None]


def close_within(engine: Engine, seconds: float) -> None:
    """Close an engine, and leave it to itself if that takes longer: it may wait for a machine that is gone."""

    def close() -> None:
        with suppress(Exception):  # what was built is published
            engine.close()

    closing = threading.Thread(target=close, name="engine-end", daemon=True)
    closing.start()
    closing.join(seconds)


def heard_or_not(say: Callable[[str], None]) -> Callable[[str], None]:
    """Return what says it, and does not mind that nobody reads it any more: that is for who builds to find out."""

    def tell(words: str) -> None:
        with suppress(OSError, ValueError):
            say(words)

    return tell


def words_of(error: BaseException) -> str:
    """Return what an error of an engine says, in short: it may be megabytes, or fail itself."""
    try:
        words = f"{type(error).__name__}: {error}".rstrip(": ")
    except Exception:
        return type(error).__name__
    return words if len(words) <= _MOST_WORDS else f"{words[:_MOST_WORDS]}..."


def open_engine(name: str) -> Engine:
    """Return the engine that a command line names. Raises `UsageError` or `MachineError`."""
    scheme, separator, place = name.partition("://")
    if separator:
        if scheme not in ("dask", "dask+tls") or not place:
            raise UsageError(f"`--executor {name}` names no engine", f"it is {_HOW}")
        from .dask import open_dask

        return open_dask(name, place, is_secure=scheme == "dask+tls")
    return _made_by(name)


def _made_by(name: str) -> Engine:
    """Return the engine around the executor, or the Dask client, that a factory gives."""
    module, separator, attribute = name.partition(":")
    if not separator or not module or not attribute:
        raise UsageError(f"`--executor {name}` names no engine", f"it is {_HOW}")
    with _kept_signals():
        try:
            factory = getattr(importlib.import_module(module), attribute)
        except ImportError as error:
            hint = "the module must be installed here, or its folder be on PYTHONPATH"
            raise UsageError(f"`--executor {name}`: {error}", hint) from None
        except AttributeError as error:
            raise UsageError(f"`--executor {name}`: {error}", f"it is {_HOW}") from None
        except (Exception, SystemExit) as error:  # whatever the module does when it is imported
            what = f"`--executor {name}`: importing `{module}`: {words_of(error)}"
            raise UsageError(what, f"it is {_HOW}") from None
        try:
            executor = factory()
        except (Exception, SystemExit) as error:
            raise MachineError(f"`{name}` gives no executor: {words_of(error)}", "") from error
    if (distributed := sys.modules.get("distributed")) and isinstance(executor, distributed.Client):
        from .dask import engine_of

        return engine_of(name, executor)
    if not isinstance(executor, Executor):
        what = f"`{name}` gives a `{type(executor).__name__}`, which is neither an `Executor` nor a Dask `Client`"
        raise UsageError(what, f"`--executor` is {_HOW}")
    return Engine(
        title=name,
        submit=lambda function, arguments, _: executor.submit(function, *arguments),
        workers=lambda: _number_of_workers(executor),
        is_lost=lambda: False,
        close=lambda: _close(executor),
    )


@contextmanager
def _kept_signals() -> Iterator[None]:
    """Have signals do afterwards what they did. Dask-Jobqueue, just imported, ends who is interrupted with code 0."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                if handler is not None:  # None: it was not Python that set it
                    signal.signal(number, handler)


def _close(executor: Executor) -> None:
    """Shut it down. What came back has come back: that it can't cancel the rest, or is broken, matters no more."""
    with warnings.catch_warnings(), suppress(Exception):
        warnings.simplefilter("ignore")
        executor.shutdown(wait=False, cancel_futures=True)


def _number_of_workers(executor: Executor) -> int | None:
    """Return what the standard library's executors and mpi4py's say of themselves."""
    for name in ("_max_workers", "num_workers"):
        number = getattr(executor, name, None)
        if type(number) is int:
            return number
    return None

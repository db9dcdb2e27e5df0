"""Asking fork servers about many calls at once, in pieces."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from ..errors import MachineError
from ..providers.call import Call, Environment
from .compile.answers import Answer, Closed
from .compile.compilers import Compilers
from .compile.pool import TaskFailed
from .compile.worker import ask, close

T = TypeVar("T")

# A call takes some milliseconds to ask; smaller pieces would ask about the same keys more often than they share out.
_MIN_CALLS_PER_TASK = 100
# More pieces than workers, since some take longer than others.
_TASKS_PER_JOB = 4

_DOCTOR = "`fa4-precompile doctor` says what this machine has"


def asked(calls: Sequence[Call], compilers: Compilers) -> Iterator[tuple[Call, Answer]]:
    """Yield each call with the provider's answer. Raises `MachineError` if it can't be asked."""

    def cut(members: Sequence[Call]) -> Iterator[Sequence[Call]]:
        size = max(_MIN_CALLS_PER_TASK, math.ceil(len(members) / (_TASKS_PER_JOB * compilers.jobs)))
        return (members[start : start + size] for start in range(0, len(members), size))

    return _in_pieces(ask, calls, cut, compilers)


def closed(calls: Sequence[Call], compilers: Compilers) -> Iterator[tuple[Call, Closed]]:
    """Yield each call with what it comes to at any of its open sizes. Raises `MachineError` if that can't be asked."""

    # Neighbours together: of those that differ in a function only, one is searched.
    def cut(members: Sequence[Call]) -> Iterator[Sequence[Call]]:
        size = math.ceil(len(members) / (_TASKS_PER_JOB * compilers.jobs))
        return (members[start : start + size] for start in range(0, len(members), size))

    return _in_pieces(close, calls, cut, compilers)


def _in_pieces(
    function: Callable[..., list[T]],
    calls: Sequence[Call],
    cut: Callable[[Sequence[Call]], Iterator[Sequence[Call]]],
    compilers: Compilers,
) -> Iterator[tuple[Call, T]]:
    pieces = []
    for environment, group in itertools.groupby(sorted(calls, key=_environment), _environment):
        pool = compilers.pool(environment)
        pieces += [(piece, pool.submit(function, compilers.pinned, piece)) for piece in cut(list(group))]
    for piece, future in pieces:
        try:
            answers = future.result()
        except TaskFailed as error:
            raise MachineError(f"the provider could not be asked for its kernels: {error}", _DOCTOR) from None
        yield from zip(piece, answers, strict=True)


def _environment(call: Call) -> Environment:
    return call.environment

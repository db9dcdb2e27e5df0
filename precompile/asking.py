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

# A call takes a millisecond or two to ask: a smaller piece is not worth a task.
_MIN_CALLS_PER_TASK = 100
# More pieces than workers, since some take longer than others.
_TASKS_PER_JOB = 4
# A call with open sizes takes some tenths of a second, and neighbours share a search.
_MIN_OPEN_CALLS_PER_TASK = 4
_OPEN_TASKS_PER_JOB = 2

_DOCTOR = "`fa4-precompile doctor` says what this machine has"


def asked(calls: Sequence[Call], compilers: Compilers) -> Iterator[tuple[Call, Answer]]:
    """Yield each call with the provider's answer. Raises `MachineError` if it can't be asked."""
    return _in_pieces(ask, calls, _MIN_CALLS_PER_TASK, _TASKS_PER_JOB, compilers)


def closed(calls: Sequence[Call], compilers: Compilers) -> Iterator[tuple[Call, Closed]]:
    """Yield each call with what it comes to at any of its open sizes. Raises `MachineError` if that can't be asked."""
    return _in_pieces(close, calls, _MIN_OPEN_CALLS_PER_TASK, _OPEN_TASKS_PER_JOB, compilers)


def _in_pieces(
    function: Callable[..., list[T]], calls: Sequence[Call], fewest: int, per_job: int, compilers: Compilers
) -> Iterator[tuple[Call, T]]:
    pieces = []
    for environment, group in itertools.groupby(sorted(calls, key=_environment), _environment):
        members, pool = list(group), compilers.pool(environment)
        size = max(fewest, math.ceil(len(members) / (per_job * compilers.jobs)))
        for start in range(0, len(members), size):
            piece = members[start : start + size]
            pieces.append((piece, pool.submit(function, compilers.pinned, piece)))
    for piece, future in pieces:
        try:
            answers = future.result()
        except TaskFailed as error:
            raise MachineError(f"the provider could not be asked for its kernels: {error}", _DOCTOR) from None
        yield from zip(piece, answers, strict=True)


def _environment(call: Call) -> Environment:
    return call.environment

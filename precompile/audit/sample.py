"""Which kernels of a plan an audit looks at."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from ...providers.call import Call
from ..asking import asked
from ..compile.answers import NotTaken, Taken
from ..compile.compilers import Compilers
from ..plan import Plan, PlannedKernel
from .artifact import identity


@dataclass(frozen=True)
class Sample:
    """Some calls of a plan, and all of its kernels that these reach, each once."""

    calls: Sequence[Call]
    kernels: Sequence[PlannedKernel]


def take_sample(plan: Plan, compilers: Compilers, fewest: int | None, seed: int) -> Sample:
    """Return calls by chance that reach at least so many kernels; of None, all.

    By calls, as a call that is made compiles all of its kernels, looked at or not.
    """
    calls = list(dict.fromkeys(planned.call for planned in plan.kernels))
    if fewest is None:
        return Sample(calls, plan.kernels)
    random.Random(seed).shuffle(calls)
    known = {identity(planned): planned for planned in plan.kernels}
    answers = dict(asked(calls, compilers))
    chosen: list[Call] = []
    kernels: dict[int, PlannedKernel] = {}
    for call in calls:
        if len(kernels) >= fewest:
            break
        chosen.append(call)
        answer = answers[call]
        for reached in answer.reached if isinstance(answer, (Taken, NotTaken)) else ():
            planned = known.get(reached.identity)
            if planned is not None:
                # From the call that is made anyway.
                kernels.setdefault(id(planned), PlannedKernel(planned.reached, call))
    return Sample(chosen, list(kernels.values()))

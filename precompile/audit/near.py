"""Calls near those of a sample, by the kernels that they reach: what an audit compiles again, from other calls."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ...providers.call import Call, Identity, Reached
from ..asking import asked
from ..compile.answers import Answer, Broken, NotTaken, Taken, WrongSpec
from ..compile.compilers import Compilers
from ..plan import PlannedKernel
from .artifact import identity
from .sample import Sample

# Of the calls that are made by chance, some reach other kernels: so many more, and so often, are asked about.
_MORE = 4
_MOST_ROUNDS = 4


@dataclass
class Considered:
    """The calls that are known to reach each kernel, in the order in which they were asked about."""

    calls: dict[Identity, list[Call]] = field(default_factory=dict)

    @property
    def fewest(self) -> int:
        """How many calls the kernel has that has fewest."""
        return min(map(len, self.calls.values()), default=0)

    @property
    def total(self) -> int:
        """How many calls there are, of each kernel."""
        return sum(map(len, self.calls.values()))


@dataclass(frozen=True)
class Perturbed:
    """A call of which one argument was changed, and what came of asking about it.

    Attributes:
        argument: its name.
        value: what it was changed to, as text.
        call: the changed call.
        same: kernels of the sample that it reaches: by their keys what was changed makes no other kernels.
        is_refused: whether the provider does not take it.
        is_broken: whether it could not be asked about: by chance calls are changed to what nobody could make.
    """

    argument: str
    value: str
    call: Call
    same: Sequence[Reached]
    is_refused: bool
    is_broken: bool


def consider(sample: Sample, compilers: Compilers, fewest: int, seed: int) -> Considered:
    """Ask about other calls until each kernel of a sample has so many, as far as there are."""
    considered = Considered({identity(planned): [planned.call] for planned in sample.kernels})
    own = dict(asked(list(dict.fromkeys(planned.call for planned in sample.kernels)), compilers))
    for attempt in range(_MOST_ROUNDS):
        short = [one for one in sample.kernels if len(considered.calls[identity(one)]) <= fewest]
        near = {
            other: own[call]
            for call in dict.fromkeys(planned.call for planned in short)
            for other in compilers.provider.others(call, fewest * _MORE, seed + attempt)
        }
        for call, answer in asked(list(near), compilers):
            for reached in _reached(answer, near[call]):
                calls = considered.calls.get(reached.identity)
                if calls is not None and call not in calls:
                    calls.append(call)
    return considered


def _reached(answer: Answer, own: Answer) -> Sequence[Reached]:
    """Return the kernels of a call that is asked about for the sake of another one, whose answer is `own`.

    Of a call that is refused those before, if the other is refused in the same words: a job that meets both compiles
    them, and so does a build.
    """
    if isinstance(answer, Taken):
        return answer.reached
    if isinstance(answer, NotTaken) and isinstance(own, NotTaken) and answer.reason == own.reason:
        return answer.reached
    return ()


def perturb(sample: Sample, compilers: Compilers, number: int, seed: int) -> list[Perturbed]:
    """Change one argument of a call, so many times, and ask which kernels of the sample the call still reaches."""
    changes = compilers.provider.perturbed(sample.calls, number, seed) if number else ()
    known = {identity(planned) for planned in sample.kernels}
    answers = dict(asked(list(dict.fromkeys(other for _, _, other in changes)), compilers))
    found = []
    for argument, call, other in changes:
        answer = answers[other]
        reached = answer.reached if isinstance(answer, Taken) else ()
        same = [one for one in reached if one.identity in known]
        value = json.dumps(dict(sorted(_changes(call, other).items())))
        is_refused, is_broken = isinstance(answer, NotTaken), isinstance(answer, (Broken, WrongSpec))
        found.append(Perturbed(argument, value, other, same, is_refused, is_broken))
    return found


def to_compile(perturbed: Sequence[Perturbed]) -> Iterator[PlannedKernel]:
    """Yield what is to be compiled of perturbed calls: of each kernel each change once."""
    seen: set[tuple[Identity, str]] = set()
    for one in perturbed:
        for reached in one.same:
            change = (reached.identity, one.value)
            if change not in seen:
                seen.add(change)
                yield PlannedKernel(reached, one.call)


def most_different(calls: Sequence[Call], number: int) -> list[Call]:
    """Return the first of some calls, and those that differ most from it and from one another, so many in all."""
    chosen = list(calls[:1])
    left = list(calls[1:])
    while left and len(chosen) < number:
        farthest = max(left, key=lambda call: min(_distance(call, one) for one in chosen))
        left.remove(farthest)
        chosen.append(farthest)
    return chosen


def _distance(one: Call, other: Call) -> int:
    return len(_changes(one, other))


def _changes(one: Call, other: Call) -> dict[str, object]:
    """Return what a call has otherwise than another, by the names of what is said of it."""
    left, right = dict(_said(one)), dict(_said(other))
    return {name: right.get(name) for name in {*left, *right} if left.get(name) != right.get(name)}


def _said(call: Call) -> Iterator[tuple[str, object]]:
    for name, value in call.variant.render().items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", one) for inner, one in value.items())
        else:
            yield name, value
    yield from call.runtime

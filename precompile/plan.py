"""Planning by asking: which kernels the calls of a spec look up, without compiling any.

Of one call, the provider's answer is in `compile/answers.py`; of a variant after all its calls, `_Outcome`; for those
who ask by `select`, one of `providers/call.py`, where `Broken` and `WrongSpec` have become errors.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..cache.manifest import Excluded
from ..cache.target import Target
from ..errors import MachineError, SpecError, UsageError
from ..providers.call import Call, Environment, Reached, Refused, Select, Selected, Unmet, Variant
from .compile.answers import Answer, Broken, NotTaken, Taken, WrongSpec
from .compile.compilers import Compilers
from .compile.pool import TaskFailed
from .compile.worker import ask
from .spec.spec import Spec

# A call takes some milliseconds to ask; smaller pieces would ask about the same keys more often than they share out.
_MIN_CALLS_PER_TASK = 100
# More pieces than workers, since some take longer than others.
_TASKS_PER_JOB = 4

_DOCTOR = "`fa4-precompile doctor` says what this machine has"


@dataclass(frozen=True)
class PlannedKernel:
    """A kernel to have in the cache, and one call that reaches it."""

    reached: Reached
    call: Call

    @property
    def label(self) -> str:
        """Return the kernel as one line for people."""
        return f"{self.reached.slot} of {self.call.variant}"


@dataclass(frozen=True)
class Plan:
    """What a spec comes to with the installed provider, for one target.

    Attributes:
        kernels: each key once.
        calls: for every variant that the provider takes, how it is called and the kernels (indices) that it reaches.
        excluded: variants that it does not take, with its reason.
        broken: variants that could not be asked about, with the traceback: no word of the provider, but a fault here.
    """

    spec: Spec
    target: Target
    kernels: Sequence[PlannedKernel]
    calls: Sequence[tuple[Call, Sequence[int]]]
    excluded: Sequence[Excluded]
    broken: Sequence[tuple[Variant, str]]

    def render(self) -> dict[str, object]:
        """Return the plan as JSON."""
        return {
            "spec": self.spec.name,
            "target": self.target.render(),
            "variants": len(self.spec.variants),
            "kernels": [
                {
                    "slot": kernel.reached.slot,
                    "key": kernel.reached.key,
                    "selection": kernel.reached.selection.render(),
                    "runtime_env": dict(kernel.call.environment),
                    "variant": kernel.call.variant.render(),
                }
                for kernel in self.kernels
            ],
            "calls": [{"variant": call.variant.render(), "kernels": list(reached)} for call, reached in self.calls],
            "excluded": [excluded.render() for excluded in self.excluded],
            "broken": [{"variant": variant.render(), "error": error} for variant, error in self.broken],
        }


@dataclass(frozen=True)
class _Accepted:
    """The provider takes a variant, called so; the kernels that it reaches, as indices, and the one of its demands."""

    call: Call
    kernels: Sequence[int]
    main: Reached | None


_Outcome = _Accepted | Refused | Unmet | Broken | WrongSpec
_Identity = tuple[str, str]  # slot and key


class Survey:
    """What came of asking about variants, and the kernels that they reach, each once."""

    def __init__(self) -> None:
        self.kernels: list[PlannedKernel] = []
        self.outcomes: dict[Variant, _Outcome] = {}
        self._indices: dict[_Identity, int] = {}
        self._without_switches: dict[Variant, set[_Identity]] = {}

    def is_open(self, variant: Variant) -> bool:
        """Return whether another way to make the call may change what is known of a variant."""
        return isinstance(self.outcomes.get(variant), (Refused, Unmet, type(None)))

    def file(self, call: Call, answer: Answer) -> None:
        """Take note of the answer to a call."""
        variant = call.variant
        if isinstance(answer, (Broken, WrongSpec)):
            self.outcomes[variant] = answer
            return
        objection = Refused(answer.reason) if isinstance(answer, NotTaken) else _objection(variant, answer)
        if objection is None and isinstance(answer, Taken):
            self.outcomes.pop(variant, None)  # accepted calls stand in the order in which they were
            indices = [self._index(call, reached) for reached in answer.reached]
            self.outcomes[variant] = _Accepted(call, indices, answer.main)
        elif objection is not None:
            self.outcomes[variant] = objection
            if call == _plain(call):
                self._without_switches[variant] = {(reached.slot, reached.key) for reached in answer.reached}

    def _index(self, call: Call, reached: Reached) -> int:
        identity = (reached.slot, reached.key)
        if identity not in self._indices:
            self._indices[identity] = len(self.kernels)
            # A key that the call looks up without switches as well is no reason to tell the job of them.
            plain = identity in self._without_switches.get(call.variant, ())
            self.kernels.append(PlannedKernel(reached, _plain(call) if plain else call))
        return self._indices[identity]


def make_plan(spec: Spec, compilers: Compilers) -> Plan:
    """Ask the provider about every variant of a spec.

    A variant whose demands are not met by the provider's own choice is asked again with the provider's switches for
    them; if that does not help it is excluded. Raises `SpecError` for an entry of which nothing is left.
    """
    survey = take_survey(spec.variants, compilers)
    outcomes = survey.outcomes
    for variant, outcome in outcomes.items():
        if isinstance(outcome, WrongSpec):
            raise _wrong(spec, variant, outcome.error)
    reasons = {one: outcome.reason for one, outcome in outcomes.items() if isinstance(outcome, (Refused, Unmet))}
    _require_something(spec, reasons)
    return Plan(
        spec=spec,
        target=compilers.target,
        kernels=survey.kernels,
        calls=[(outcome.call, outcome.kernels) for outcome in outcomes.values() if isinstance(outcome, _Accepted)],
        excluded=[Excluded(variant.render(), reason) for variant, reason in reasons.items()],
        broken=[(one, outcome.report) for one, outcome in outcomes.items() if isinstance(outcome, Broken)],
    )


def selector(compilers: Compilers) -> Select:
    """Return what asks the provider of some fork servers what it selects."""
    return functools.partial(select, compilers=compilers)


def select(variants: Sequence[Variant], compilers: Compilers) -> Mapping[Variant, Selected | Refused | Unmet]:
    """Ask the provider what it selects for each variant, or its reason against it.

    Raises `MachineError` if one of them can't be asked about, `UsageError` if one names what is not there.
    """
    survey = take_survey(variants, compilers)
    return {variant: _selected(variant, outcome) for variant, outcome in survey.outcomes.items()}


def _selected(variant: Variant, outcome: _Outcome) -> Selected | Refused | Unmet:
    match outcome:
        case Broken(report):
            last = report.strip().splitlines()[-1]
            raise MachineError(f"the provider could not be asked about `{variant}`: {last}", "")
        case WrongSpec(error):
            raise error
        case _Accepted(call, _, main):
            return Selected(main, call.environment) if main else Refused("the provider looks up no kernel of this pass")
        case Refused() | Unmet():
            return outcome
    raise AssertionError(outcome)


def take_survey(variants: Sequence[Variant], compilers: Compilers) -> Survey:
    """Ask about variants: each as it stands, then with switches for as long as one of them may change the answer."""
    ways = {variant: compilers.provider.calls(variant) for variant in variants}
    # Each starts for seconds, and most demands need their switch: let them start side by side.
    compilers.warm_up({call.environment for calls in ways.values() for call in calls[:2]})
    survey = Survey()
    for attempt in itertools.count():
        open_ways = [calls for variant, calls in ways.items() if survey.is_open(variant)]
        asked = [calls[attempt] for calls in open_ways if attempt < len(calls)]
        if not asked:
            break
        for call, answer in _ask(asked, compilers):
            survey.file(call, answer)
    return survey


def _ask(calls: Sequence[Call], compilers: Compilers) -> Iterator[tuple[Call, Answer]]:
    pieces = []
    for environment, group in itertools.groupby(sorted(calls, key=_environment), _environment):
        pool, members = compilers.pool(environment), list(group)
        size = max(_MIN_CALLS_PER_TASK, math.ceil(len(members) / (_TASKS_PER_JOB * compilers.jobs)))
        for start in range(0, len(members), size):
            piece = members[start : start + size]
            pieces.append((piece, pool.submit(ask, compilers.pinned, piece)))
    for piece, future in pieces:
        try:
            answers = future.result()
        except TaskFailed as error:
            raise MachineError(f"the provider could not be asked for its kernels: {error}", _DOCTOR) from None
        yield from zip(piece, answers, strict=True)


def _environment(call: Call) -> Environment:
    return call.environment


def _plain(call: Call) -> Call:
    """Return a call as its variant stands, with no switch for its demands."""
    return Call(call.variant, call.variant.job_env)


def _objection(variant: Variant, answer: Taken) -> Refused | Unmet | None:
    """Return why a call that is taken is not what was demanded, else nothing."""
    if not variant.demands:
        return None
    if answer.main is None:
        reason = "the provider looks up no kernel of this pass, so its tile, cluster_size and backend are not known"
        return Refused(reason)
    selection = answer.main.selection
    unmet = variant.demands.unmet_by(selection)
    return Unmet(f"demands {', '.join(unmet)}; the provider selects {selection}") if unmet else None


def _wrong(spec: Spec, variant: Variant, error: UsageError) -> SpecError:
    entry = next(entry for entry in spec.entries if variant in entry.variants)
    return entry.place.error(f"entry `{entry.name}`: {error}", error.hint)


def _require_something(spec: Spec, reasons: dict[Variant, str]) -> None:
    for entry in spec.entries:
        if all(variant in reasons for variant in entry.variants):
            distinct = list(dict.fromkeys(reasons[variant] for variant in entry.variants))
            shown = "; ".join(distinct[:3]) + (f"; and {len(distinct) - 3} more" if len(distinct) > 3 else "")
            questions = [one.question for one in entry.lists]
            hint = " ".join([*questions, "change the entry or take it out; nothing was built"])
            raise entry.place.error(f"entry `{entry.name}` has nothing to build: {shown}", hint)

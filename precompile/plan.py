"""Planning by asking: which kernels the calls of a spec look up, without compiling any.

Of one call, the provider's answer is in `compile/answers.py`; of a variant after all its calls, `_Outcome`; for those
who ask by `select`, one of `providers/call.py`, where `Broken` and `WrongSpec` have become errors.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..cache.manifest import Excluded
from ..cache.target import Target
from ..errors import MachineError
from ..providers.call import Call, Identity, Reached, Refused, Select, Selected, Unmet, Variant
from .asking import asked
from .closure import Closure, Growth, close_variants, growth, open_variants
from .compile.answers import Answer, Broken, Taken, WrongSpec, objection
from .compile.compilers import Compilers
from .spec.spec import Entry, Spec

_ONE_OF = " (this is one of the shapes in the ranges that get this answer)"


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
        growth: of each entry whose calls leave sizes open, what these add.

    For a variant that leaves sizes open, `calls`, `excluded` and `broken` have calls at some of its sizes.
    """

    spec: Spec
    target: Target
    kernels: Sequence[PlannedKernel]
    calls: Sequence[tuple[Call, Sequence[int]]]
    excluded: Sequence[Excluded]
    broken: Sequence[tuple[Variant, str]]
    growth: Sequence[Growth] = ()

    def labels(self) -> dict[int, str]:
        """Return what its kernels are called in a manifest, by identity of the object.

        Two keys of one call are two kernels: equal labels are numbered in the order of the plan, so that all builds of
        a spec call a kernel the same, whatever they have.
        """
        labels: dict[int, str] = {}
        told: Counter[str] = Counter()
        for planned in self.kernels:
            told[planned.label] += 1
            number = told[planned.label]
            labels[id(planned)] = planned.label if number == 1 else f"{planned.label} ({number})"
        return labels

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
                    "facts": dict(kernel.reached.facts),
                    "selection": kernel.reached.selection.render(),
                    "runtime_env": dict(kernel.call.environment),
                    "variant": kernel.call.variant.render(),
                }
                for kernel in self.kernels
            ],
            "calls": [{"variant": call.variant.render(), "kernels": list(reached)} for call, reached in self.calls],
            "excluded": [excluded.render() for excluded in self.excluded],
            "broken": [{"variant": variant.render(), "error": error} for variant, error in self.broken],
            "growth": [growth.render() for growth in self.growth],
        }


@dataclass(frozen=True)
class _Accepted:
    """The provider takes a variant, called so; the kernels that it reaches, as indices, and the one of its demands."""

    call: Call
    kernels: Sequence[int]
    main: Reached | None


_Outcome = _Accepted | Refused | Unmet | Broken | WrongSpec


class Survey:
    """What came of asking about variants, and the kernels that they reach, each once."""

    def __init__(self) -> None:
        self.kernels: list[PlannedKernel] = []
        self.outcomes: dict[Variant, _Outcome] = {}
        self._indices: dict[Identity, int] = {}
        self._without_switches: dict[Variant, set[Identity]] = {}

    def is_open(self, variant: Variant) -> bool:
        """Return whether another way to make the call may change what is known of a variant."""
        return isinstance(self.outcomes.get(variant), (Refused, Unmet, type(None)))

    def file(self, call: Call, answer: Answer) -> None:
        """Take note of the answer to a call."""
        variant = call.variant
        if isinstance(answer, (Broken, WrongSpec)):
            self.outcomes[variant] = answer
            return
        against = objection(variant, answer)
        if against is None and isinstance(answer, Taken):
            self.outcomes.pop(variant, None)  # accepted calls stand in the order in which they were
            self.outcomes[variant] = _Accepted(call, self.add(call, answer), answer.main)
        elif against is not None:
            self.outcomes[variant] = against
            if call == _plain(call):
                self._without_switches[variant] = {reached.identity for reached in answer.reached}

    def add(self, call: Call, answer: Taken) -> list[int]:
        """Return the indices of the kernels that a call reaches; those that are new are added."""
        return [self._index(call, reached) for reached in answer.reached]

    def _index(self, call: Call, reached: Reached) -> int:
        identity = reached.identity
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
    _warm_up(spec.variants, compilers)
    closures = close_variants(open_variants(spec.variants, compilers.provider), compilers)
    survey = take_survey(_listed(spec.variants, closures), compilers)
    for closure in closures.values():
        for call, answer in closure.accepted:
            survey.add(call, answer)
    outcomes = survey.outcomes
    for entry in spec.entries:
        for variant in _listed(entry.variants, closures):
            if isinstance(outcome := outcomes[variant], WrongSpec):
                raise entry.place.error(f"entry `{entry.name}`: {outcome.error}", outcome.error.hint)
        _require_something(entry, _listed(entry.variants, closures), outcomes)
    return Plan(
        spec=spec,
        target=compilers.target,
        kernels=survey.kernels,
        calls=[(outcome.call, outcome.kernels) for outcome in outcomes.values() if isinstance(outcome, _Accepted)],
        excluded=_excluded(outcomes, closures),
        broken=[(one, outcome.report) for one, outcome in outcomes.items() if isinstance(outcome, Broken)],
        growth=[
            growth(entry.name, [closures[variant] for variant in open_ones])
            for entry in spec.entries
            if (open_ones := [variant for variant in entry.variants if variant in closures])
        ],
    )


def _listed(variants: Sequence[Variant], closures: Mapping[Variant, Closure]) -> list[Variant]:
    """Return variants, and in the place of those that leave sizes open the calls that they come to, each once."""
    listed = [closures[variant].variants if variant in closures else [variant] for variant in variants]
    return list(dict.fromkeys(itertools.chain.from_iterable(listed)))


def _excluded(outcomes: Mapping[Variant, _Outcome], closures: Mapping[Variant, Closure]) -> list[Excluded]:
    """Return what is not taken: of a variant that leaves sizes open all of it, or one call for each reason."""
    reasons = {one: outcome.reason for one, outcome in outcomes.items() if isinstance(outcome, (Refused, Unmet))}
    found = []
    for variant, closure in closures.items():
        whole = not any(isinstance(outcomes[one], _Accepted) for one in closure.variants)
        for one in closure.variants:
            if one in reasons:
                reason = reasons.pop(one)
                found.append(Excluded(variant.render(), reason) if whole else Excluded(one.render(), reason + _ONE_OF))
    return [*(Excluded(variant.render(), reason) for variant, reason in reasons.items()), *found]


def selector(compilers: Compilers) -> Select:
    """Return what asks the provider of some fork servers what it selects."""
    return functools.partial(select, compilers=compilers)


def select(variants: Sequence[Variant], compilers: Compilers) -> Mapping[Variant, Selected | Refused | Unmet]:
    """Ask the provider what it selects for each variant, or its reason against it.

    Raises `MachineError` if one of them can't be asked about, `UsageError` if one names what is not there.
    """
    _warm_up(variants, compilers)
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


def _warm_up(variants: Sequence[Variant], compilers: Compilers) -> None:
    """Start the fork servers that variants may need: each takes seconds, and most demands need their switch."""
    compilers.warm_up({call.environment for one in variants for call in compilers.provider.calls(one)[:2]})


def take_survey(variants: Sequence[Variant], compilers: Compilers) -> Survey:
    """Ask about variants: each as it stands, then with switches for as long as one of them may change the answer."""
    ways = {variant: compilers.provider.calls(variant) for variant in variants}
    survey = Survey()
    for attempt in itertools.count():
        open_ways = [way for variant, way in ways.items() if survey.is_open(variant)]
        calls = [way[attempt] for way in open_ways if attempt < len(way)]
        if not calls:
            break
        for call, answer in asked(calls, compilers):
            survey.file(call, answer)
    return survey


def _plain(call: Call) -> Call:
    """Return a call as its variant stands, with no switch for its demands."""
    return Call(call.variant, call.variant.job_env)


def _require_something(entry: Entry, variants: Sequence[Variant], outcomes: Mapping[Variant, _Outcome]) -> None:
    reasons = [outcome.reason for one in variants if isinstance(outcome := outcomes[one], (Refused, Unmet))]
    if len(reasons) < len(variants):
        return
    distinct = list(dict.fromkeys(reasons))
    shown = "; ".join(distinct[:3]) + (f"; and {len(distinct) - 3} more" if len(distinct) > 3 else "")
    questions = [one.question for one in entry.lists]
    hint = " ".join([*questions, "change the entry or take it out; nothing was built"])
    raise entry.place.error(f"entry `{entry.name}` has nothing to build: {shown}", hint)

"""Planning by asking: which kernels the calls of a spec look up, without compiling any."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ..cache.manifest import Excluded
from ..cache.record import Selection
from ..cache.target import Target
from ..errors import MachineError, SpecError, UsageError
from .compilers import Compilers, Environment
from .flash_attn_4 import plain_call, switched_calls
from .pool import TaskFailed
from .provider import Call
from .spec import Spec
from .variant import Variant
from .words import describe
from .worker import Answers, Asked, Reached, ask

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


@dataclass
class _Draft:
    kernels: dict[tuple[str, str], int] = field(default_factory=dict)
    planned: list[PlannedKernel] = field(default_factory=list)
    calls: dict[Variant, tuple[Call, list[int]]] = field(default_factory=dict)
    reasons: dict[Variant, str] = field(default_factory=dict)
    broken: dict[Variant, str] = field(default_factory=dict)
    wrong: dict[Variant, UsageError] = field(default_factory=dict)
    without_switches: set[tuple[Variant, str, str]] = field(default_factory=set)

    def take(self, call: Call, answers: Answers, asked: Asked) -> bool:
        """File the answer to a call, and return whether it is one that switches may change."""
        if asked.breakdown:
            self.reasons.pop(call.variant, None)
            self.broken[call.variant] = asked.breakdown
            return False
        reason = _objection(call.variant, answers, asked)
        if not reason:
            self.reasons.pop(call.variant, None)
            self._accept(call, answers, asked)
            return False
        self.reasons[call.variant] = reason
        if call == plain_call(call.variant):
            reached = [answers.kernels[index] for index in asked.reached]
            self.without_switches.update((call.variant, kernel.slot, kernel.key) for kernel in reached)
        return True

    def _accept(self, call: Call, answers: Answers, asked: Asked) -> None:
        indices = []
        for reached in (answers.kernels[index] for index in asked.reached):
            identity = (reached.slot, reached.key)
            if identity not in self.kernels:
                self.kernels[identity] = len(self.planned)
                # A key that the call looks up without switches as well is no reason to tell the job of them.
                plain = (call.variant, *identity) in self.without_switches
                self.planned.append(PlannedKernel(reached, plain_call(call.variant) if plain else call))
            indices.append(self.kernels[identity])
        self.calls[call.variant] = (call, indices)


def make_plan(spec: Spec, compilers: Compilers) -> Plan:
    """Ask the provider about every variant of a spec.

    A variant whose demands are not met by the provider's own choice is asked again with the provider's switches for
    them; if that does not help it is excluded. Raises `SpecError` for an entry of which nothing is left.
    """
    draft = _draft(spec.variants, compilers)
    for variant, error in draft.wrong.items():
        raise _wrong(spec, variant, error)
    _require_something(spec, draft.reasons)
    return Plan(
        spec=spec,
        target=compilers.target,
        kernels=draft.planned,
        calls=list(draft.calls.values()),
        excluded=[Excluded(variant.render(), reason) for variant, reason in draft.reasons.items()],
        broken=list(draft.broken.items()),
    )


@dataclass(frozen=True)
class Selected:
    """What the provider takes for a variant: the kernel of its pass, and the variables that a job must set."""

    kernel: Reached
    environment: Environment


def select(variants: Sequence[Variant], compilers: Compilers) -> dict[Variant, Selected | str]:
    """Ask the provider what it selects for each variant, or its reason against it.

    Raises `MachineError` if one of them can't be asked about.
    """
    draft = _draft(variants, compilers)
    for variant, report in draft.broken.items():
        raise MachineError(f"the provider could not be asked about `{variant}`: {report.strip().splitlines()[-1]}", "")
    found: dict[Variant, Selected | str] = dict(draft.reasons)
    for variant, (call, indices) in draft.calls.items():
        kernels = [draft.planned[index].reached for index in indices]
        main = [kernel for kernel in kernels if kernel.slot == variant.pass_]
        found[variant] = (
            Selected(main[-1], call.environment) if main else "the provider looks up no kernel of this pass"
        )
    return found


def _draft(variants: Sequence[Variant], compilers: Compilers) -> _Draft:
    draft = _Draft()
    calls = [plain_call(variant) for variant in variants]
    # Each starts for seconds, and most demands need their switch: let them start side by side.
    likely = [call for variant in variants for call in switched_calls(variant)[:1]]
    compilers.start({call.environment for call in [*calls, *likely]})
    for attempt in itertools.count():
        unmet = []
        for call, answers, asked in _ask(calls, compilers):
            if asked.wrong is not None:
                draft.wrong[call.variant] = asked.wrong
            elif draft.take(call, answers, asked):
                unmet.append(switched_calls(call.variant))
        calls = [switched[attempt] for switched in unmet if attempt < len(switched)]
        if not calls:
            return draft
    raise AssertionError("unreachable")


def _ask(calls: Sequence[Call], compilers: Compilers) -> Iterator[tuple[Call, Answers, Asked]]:
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
        for call, asked in zip(piece, answers.calls, strict=True):
            yield call, answers, asked


def _environment(call: Call) -> Environment:
    return call.environment


def _objection(variant: Variant, answers: Answers, asked: Asked) -> str:
    """Return why a call can't be taken as it was asked: the provider's refusal or an unmet demand, else nothing."""
    if asked.refusal or not variant.has_demands:
        return asked.refusal
    if asked.main is None:
        return "the provider looks up no kernel of this pass, so its tile, cluster_size and backend are not known"
    selection = answers.kernels[asked.main].selection
    unmet = list(_unmet(variant, selection))
    if not unmet:
        return ""
    return f"demands {', '.join(unmet)}; the provider selects {describe(selection)}"


def _unmet(variant: Variant, selection: Selection) -> list[str]:
    unmet = []
    if variant.cluster_size not in (None, selection.cluster_size):
        unmet.append(f"cluster_size {variant.cluster_size}")
    if variant.backend not in (None, selection.backend):
        unmet.append(f"backend {variant.backend}")
    if variant.tile is not None and variant.tile not in selection.tiles.values():
        unmet.append(f"tile {variant.tile[0]}x{variant.tile[1]}")
    return unmet


def _wrong(spec: Spec, variant: Variant, error: UsageError) -> SpecError:
    entry = next(entry for entry in spec.entries if variant in entry.variants)
    return entry.place.error(f"entry `{entry.name}`: {error}", error.hint)


def _require_something(spec: Spec, reasons: dict[Variant, str]) -> None:
    for entry in spec.entries:
        if all(variant in reasons for variant in entry.variants):
            distinct = list(dict.fromkeys(reasons[variant] for variant in entry.variants))
            shown = "; ".join(distinct[:3]) + (f"; and {len(distinct) - 3} more" if len(distinct) > 3 else "")
            hint = "change the entry or take it out; nothing was built"
            raise entry.place.error(f"entry `{entry.name}` has nothing to build: {shown}", hint)

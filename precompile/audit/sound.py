"""Sound: one key, one artifact. A kernel is compiled from other calls that reach its key, and has to come out the same.

The other calls are of two kinds: those that differ in what should be in no key, and those of which one argument was
changed that should. Where a changed argument gives another key, nothing needs to be compiled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...providers.call import Identity
from ...text.words import count
from ..compile.compilers import Compilers
from ..plan import PlannedKernel
from ..progress import Progress
from .artifact import Artifact, Outcome, compile_each, identity
from .findings import Finding, Made, Part, made
from .near import Considered, Perturbed, consider, most_different, perturb, to_compile
from .sample import Sample

NAME = "sound"


@dataclass(frozen=True)
class Depth:
    """How hard is looked for two artifacts of one key.

    Attributes:
        considered: calls that are asked about for each key, beside its own.
        compiled: of these, how many are compiled, and the kernel's own.
        perturbed: calls of which an argument is changed.
    """

    considered: int
    compiled: int
    perturbed: int


def audit_sound(
    sample: Sample, ours: Sequence[Outcome], compilers: Compilers, progress: Progress, depth: Depth, seed: int
) -> Part:
    """Compile the kernels of a sample from other calls; `ours` are those from its own, in its order."""
    progress.note(f"asking {compilers.provider.name} about other calls of {count(len(sample.kernels), 'kernel')}")
    considered = consider(sample, compilers, depth.considered, seed)
    changed = perturb(sample, compilers, depth.perturbed, seed)
    wanted = _distinct(_others(sample, considered, depth.compiled), to_compile(changed))
    own = {identity(one): (one, outcome) for one, outcome in zip(sample.kernels, ours, strict=True)}
    findings = list(_lost(own))
    for planned, outcome in compile_each(wanted, compilers, progress):
        for finding in _compared(*own[identity(planned)], planned, outcome):
            progress.note(f"found: {finding.problem}: {planned.label}")  # hours before the end, perhaps
            findings.append(finding)
    findings.sort(key=lambda finding: (finding.slot, *(side.spec_line for side in finding.sides)))
    return Part(NAME, _counts(sample, considered, changed, len(wanted)), findings)


def _others(sample: Sample, considered: Considered, compiled: int) -> Iterator[PlannedKernel]:
    for planned in sample.kernels:
        calls = considered.calls[identity(planned)]
        yield from (PlannedKernel(planned.reached, call) for call in most_different(calls, compiled)[1:])


def _distinct(*wanted: Iterator[PlannedKernel]) -> list[PlannedKernel]:
    found = {(identity(planned), planned.call): planned for some in wanted for planned in some}
    return list(found.values())


def _lost(own: Mapping[Identity, tuple[PlannedKernel, Outcome]]) -> Iterator[Finding]:
    for planned, outcome in own.values():
        if not isinstance(outcome, Artifact):
            yield _finding("a kernel does not compile", planned, [made("call", planned.call, None)], [outcome])


def _compared(first: PlannedKernel, own: Outcome, planned: PlannedKernel, outcome: Outcome) -> Iterator[Finding]:
    if not isinstance(own, Artifact):
        return
    here = outcome if isinstance(outcome, Artifact) else None
    sides = [made("call 1", first.call, own), made("call 2", planned.call, here)]
    if not isinstance(outcome, Artifact):
        yield _finding("a kernel does not compile from another call of its key", planned, sides, [outcome])
    elif differs := own.differs(outcome):
        yield _finding("two calls of one key need two kernels", planned, sides, differs, True)


def _finding(
    problem: str, planned: PlannedKernel, sides: Sequence[Made], differs: Sequence[str], is_ambiguous: bool = False
) -> Finding:
    reached = planned.reached
    return Finding(problem, reached.slot, reached.key_fields, sides, differs, is_ambiguous)


def _counts(sample: Sample, considered: Considered, changed: Sequence[Perturbed], compiled: int) -> dict[str, int]:
    return {
        "kernels": len(sample.kernels),
        "calls considered": considered.total,
        "fewest for a kernel": considered.fewest,
        "changed calls": len(changed),
        "refused of these": sum(one.is_refused for one in changed),
        "not to be asked about": sum(one.is_broken for one in changed),
        "reaching a kernel of the sample": sum(bool(one.same) for one in changed),
        "compiled again": compiled,
    }

"""From a spec to what an audit of it found: its parts, one after another."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from ...cache.store import Root
from ...cache.target import Target
from ...cache.toolchain import Toolchain
from ...text.words import count
from ..buildable import require_buildable
from ..compile.compilers import Compilers
from ..plan import make_plan
from ..progress import Progress
from ..spec.spec import Spec
from . import sound, steady, stock
from .artifact import Outcome, cached, compile_each
from .findings import Part
from .sample import Sample, take_sample
from .sound import Depth

PARTS = (stock.NAME, sound.NAME, steady.NAME)


@dataclass(frozen=True)
class Effort:
    """How much an audit looks at.

    Attributes:
        parts: which ones.
        sample: about how many kernels; None for all.
        depth: how hard `sound` looks.
        seed: what chance goes by.
        jobs: processes at a time.
        time_limit: seconds for a kernel.
    """

    parts: Sequence[str]
    sample: int | None
    depth: Depth
    seed: int
    jobs: int
    time_limit: float


@dataclass(frozen=True)
class Audit:
    """What an audit of a spec for a target did, and found.

    `kernels` are those that the spec comes to, looked at or not; `broken` its calls that could not be asked about, with
    what went wrong.
    """

    spec: str
    target: Target
    toolchain: Toolchain
    kernels: int
    broken: Sequence[str]
    parts: Sequence[Part]
    seconds: float

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found."""
        return not self.broken and not any(part.findings for part in self.parts)

    def render(self) -> dict[str, object]:
        """Return the fields as JSON."""
        return {
            "spec": self.spec,
            "target": self.target.render(),
            "toolchain": self.toolchain.render(),
            "kernels": self.kernels,
            "broken": list(self.broken),
            "parts": [part.render() for part in self.parts],
            "seconds": round(self.seconds, 3),
        }


def audit(spec: Spec, target: Target, toolchain: Toolchain, root: Root, progress: Progress, effort: Effort) -> Audit:
    """Audit the kernels of a spec. What `root` has is looked at as it is there; nothing is published.

    Raises `SpecError`, and `MachineError` if this machine can't compile for the target.
    """
    start = time.monotonic()
    require_buildable(target)
    parts = []
    with Compilers(spec.provider, target, toolchain, effort.jobs, effort.time_limit) as compilers:
        progress.note(f"asking {toolchain.provider} about {count(len(spec.variants), 'call')}")
        plan = make_plan(spec, compilers)
        compilers.require_arch()
        sample = take_sample(plan, compilers, effort.sample, effort.seed)
        ours = _ours(sample, compilers, root, progress) if {stock.NAME, sound.NAME} & set(effort.parts) else []
        if stock.NAME in effort.parts:
            parts.append(stock.audit_stock(sample, ours, compilers, progress, effort.time_limit))
        if sound.NAME in effort.parts:
            parts.append(sound.audit_sound(sample, ours, compilers, progress, effort.depth, effort.seed))
    if steady.NAME in effort.parts:
        some = None if effort.sample is None else sample
        parts.append(steady.audit_steady(spec, target, some, effort.jobs, effort.time_limit, progress))
    broken = [f"{variant}: {report.strip().splitlines()[-1]}" for variant, report in plan.broken]
    return Audit(spec.name, target, toolchain, len(plan.kernels), broken, parts, time.monotonic() - start)


def _ours(sample: Sample, compilers: Compilers, root: Root, progress: Progress) -> list[Outcome]:
    """Return the sample's kernels: those of a cache, and what a build makes of the others."""
    here = [cached(root, compilers, planned) for planned in sample.kernels]
    left = [planned for planned, artifact in zip(sample.kernels, here, strict=True) if artifact is None]
    progress.note(f"{count(len(here) - len(left), 'kernel')} of `{root.path}`, {len(left)} to compile")
    made = {id(planned): outcome for planned, outcome in compile_each(left, compilers, progress)}
    return [artifact or made[id(planned)] for planned, artifact in zip(sample.kernels, here, strict=True)]

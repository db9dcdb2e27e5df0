"""Is all of a spec in a cache, and does it fit what is installed here?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..cache import layout
from ..cache.compared import RunTime
from ..cache.fit import Fit
from ..cache.key import KernelId
from ..cache.manifest import Excluded, Manifest
from ..cache.outcome import FAULTS, Finding, Miss, MissReason, finding_of
from ..cache.store import Root
from ..cache.target import Target, host_machine
from ..cache.toolchain import Toolchain
from ..carry.united import difference, united
from ..errors import MachineError
from ..providers.dsl.installation import dsl_parts
from ..providers.installed import installed_run_time, installed_toolchain
from ..providers.known_bad.listed import NOTHING, KnownBad
from ..text.words import count, one_line
from .compile.compilers import Compilers
from .compile.pool import default_jobs
from .inventory import candidate_ids, find_planned
from .known_bad import Doubt, doubts_of_cache
from .plan import Plan, make_plan
from .spec.sources import NOT_FOUND
from .spec.spec import Spec

if TYPE_CHECKING:  # whoever names none does without what checks kernels
    from .lending import Lender


@dataclass(frozen=True)
class CheckResult:
    """The answer for one target: nothing found means yes.

    `kernels` is how many were looked at, `built` those that the manifest names, each with its toolchain; `excluded` are
    calls of the spec that have none, as the provider does not take them, which is no finding; `untrusted` names a path
    that others could have written, if there is one; `is_unreadable` says whether there is something that could not be
    read, `is_only_left` whether nothing is found but what is left to other shards; `known_bad` which kernels are known
    to be bad, which is no finding either; `inexact` is what differs between what built the kernels and what is
    installed.
    """

    spec: str
    target: Target
    kernels: int
    findings: Sequence[str]
    untrusted: str = ""
    excluded: Sequence[Excluded] = ()
    is_unreadable: bool = False
    is_only_left: bool = False
    built: Sequence[tuple[str, KernelId]] = ()
    known_bad: Sequence[Doubt] = ()
    inexact: Sequence[str] = ()

    def render(self) -> dict[str, object]:
        """Return the fields as JSON."""
        return {
            "spec": self.spec,
            "target": self.target.render(),
            "kernels": self.kernels,
            "findings": list(self.findings),
            "excluded": [excluded.render() for excluded in self.excluded],
            "known_bad": [doubt.render() for doubt in self.known_bad],
            "inexact": list(self.inexact),
        }


def check_spec(
    root: Root,
    spec: Spec,
    target: Target,
    lenders: Sequence[Lender] = (),
    known: KnownBad = NOTHING,
    fit: Fit = Fit.EXACT,
) -> CheckResult:
    """Compare a spec's manifest with the cache and with what is installed here, as a job does. Imports no provider.

    What the cache does not have and one of the `lenders` lists is no finding: a build would take it from there.

    Where no part of the DSL is installed, with what is installed for jobs: the run-time library has to be in the cache.

    The manifest is the proof that a build was complete; a spec without one was not built, whatever else is there. It
    proves nothing of functions that the spec's digest does not tell: such a spec is planned, and each planned kernel
    looked up. Raises `MachineError` if there is no toolchain here to compare or to plan with, and what `make_plan` and
    `find_planned` raise.
    """
    run_time = replace(installed_run_time(spec.provider), machine=target.machine)  # as jobs there have it
    for toolchain in _candidates(root, spec, target, run_time, fit):
        try:
            here = root.manifest(toolchain.id, spec.digest, target)
        except FAULTS as error:
            found = finding_of(error, root.path, layout.manifest_path(toolchain.id, spec.digest, target))
            return _without_manifest(spec, target, [found])
        manifest = _with_lent(here, (one.manifest(toolchain.id, spec.digest, target) for one in lenders))
        if manifest is not None:
            break
    else:
        faults = [item for item in (*root.toolchains(), *root.manifests()) if isinstance(item, Finding)]
        return _without_manifest(spec, target, faults, _why_none(root, spec, target, run_time, fit))
    findings, untrusted, is_unreadable = list[str](), "", False
    for fault in () if here is None else _toolchain_faults(root, manifest.toolchain):
        findings.append(f"{fault.path}: {fault.problem}")
        untrusted = untrusted or fault.untrusted
        is_unreadable |= fault.reason is MissReason.UNREADABLE
    if target.machine == host_machine() and not any(dsl_parts().values()) and not root.has_library(manifest.toolchain):
        path = layout.library_path(manifest.toolchain)
        findings.append(f"{path}: the run-time library is not in the cache as it should be, nor is the DSL installed")
    for label, reason in manifest.failed.items():
        findings.append(f"failed to compile when the spec was built: {label}: {reason}")
    left = [f"{count(number, 'kernel')} left to shard {shard}" for shard, number in _by_shard(manifest)]
    findings += left
    for kernel in manifest.kernels:
        answer = root.find_record(manifest.toolchain, kernel)
        if isinstance(answer, Miss) and not any(one.has(manifest.toolchain, kernel) for one in lenders):
            findings.append(f"kernel {kernel[:12]} is {answer.reason.value}: {answer.detail}")
            untrusted = untrusted or answer.path
            is_unreadable |= answer.reason is MissReason.UNREADABLE
    kernels, excluded = len(manifest.kernels), manifest.excluded
    if spec.sources.untold:
        with Compilers(
            spec.provider, target, installed_toolchain(spec.provider, target.machine), default_jobs()
        ) as compilers:
            plan = make_plan(spec, compilers)
        findings += _not_as_planned(root, plan, toolchain, lenders)
        kernels, excluded = len(plan.kernels), plan.excluded
    is_only_left = bool(left) and len(findings) == len(left)
    return CheckResult(
        spec.name,
        target,
        kernels,
        findings,
        untrusted,
        excluded,
        is_unreadable,
        is_only_left,
        built=[(manifest.toolchain, kernel) for kernel in manifest.kernels],
        known_bad=doubts_of_cache(known.about(toolchain, target.arch), root, manifest.toolchain, manifest.kernels),
        inexact=run_time.inexact(toolchain),
    )


def _by_shard(manifest: Manifest) -> list[tuple[str, int]]:
    """Return how many kernels are left to each shard."""
    return sorted(Counter(manifest.left.values()).items())


def _with_lent(here: Manifest | None, lent: Iterable[Manifest | None]) -> Manifest | None:
    """Return the manifest that is here; if it leaves kernels to other shards, or there is none, with what is lent."""
    if here is not None and not here.left:
        return here
    parts = [part for part in (here, *lent) if part is not None]
    alike = [part for part in parts if not difference(parts[0], part)]
    return united(alike) if alike else None


def _candidates(root: Root, spec: Spec, target: Target, run_time: RunTime, fit: Fit) -> Iterator[Toolchain]:
    """Yield the toolchains whose kernels a job takes here: the installed one, then the nearest that built the spec.

    Raises `MachineError` if the DSL is installed in part.
    """
    if any(dsl_parts().values()):
        try:
            yield installed_toolchain(spec.provider, target.machine)
        except MachineError:
            if target.machine == host_machine():
                raise  # else it was built elsewhere, perhaps
    built = {item.toolchain for item in root.manifests() if isinstance(item, Manifest) and _is_of(item, spec, target)}
    there = [item for item in root.toolchains() if isinstance(item, Toolchain) and item.id in built]
    fitting = [item for item in there if not run_time.differences(item, fit)]
    yield from sorted(fitting, key=lambda item: len(run_time.inexact(item)))


def _is_of(manifest: Manifest, spec: Spec, target: Target) -> bool:
    return manifest.spec_digest == spec.digest and manifest.target == target


def _without_manifest(
    spec: Spec, target: Target, faults: Sequence[Finding], reasons: Sequence[str] = ()
) -> CheckResult:
    """Return the answer where there is no manifest that can be read: what is wrong with those there are, and why."""
    return CheckResult(
        spec.name,
        target,
        0,
        [*(f"{fault.path}: {fault.problem}" for fault in faults), *reasons],
        next((fault.untrusted for fault in faults), ""),
        is_unreadable=any(fault.reason is MissReason.UNREADABLE for fault in faults),
    )


def _not_as_planned(root: Root, plan: Plan, toolchain: Toolchain, lenders: Sequence[Lender]) -> Iterator[str]:
    """Yield what a plan comes to and neither the cache nor a lender has, and what could not be planned."""
    for planned in plan.kernels:
        ids = candidate_ids(toolchain, plan.target, planned)
        if find_planned(root, toolchain, plan.target, planned) is None and not any(
            lender.has(toolchain.id, kernel) for lender in lenders for kernel in ids
        ):
            yield f"not in the cache: {planned.label}"
    for variant, report in plan.broken:
        yield f"could not be asked about: {variant}: {report.strip().splitlines()[-1]}"


def _toolchain_faults(root: Root, toolchain: str) -> list[Finding]:
    """Return what keeps a job from finding out that kernels of a toolchain fit: it looks through what can be read."""
    items = list(root.toolchains())
    if any(not isinstance(item, Finding) and item.id == toolchain for item in items):
        return []
    path = layout.toolchain_path(toolchain)
    lost = Finding(path, MissReason.ABSENT, "is not there, so no job can tell that the kernels fit")
    return [item for item in items if isinstance(item, Finding)] or [lost]


def _why_none(root: Root, spec: Spec, target: Target, run_time: RunTime, fit: Fit) -> list[str]:
    """Return why there is no manifest of what fits here: another toolchain's differences, or no build."""
    unfit = {item.id: run_time.differences(item, fit) for item in root.toolchains() if isinstance(item, Toolchain)}
    found = []
    for manifest in root.manifests():
        if isinstance(manifest, Finding) or manifest.spec_digest != spec.digest or manifest.target.name != target.name:
            continue
        if manifest.target != target:
            found.append(f"it was built for another {target.name}: {one_line(manifest.target.render())}")
        elif unfit.get(manifest.toolchain):
            found.append(f"it was built for another installation: {'; '.join(unfit[manifest.toolchain])}")
    if found:
        return found
    others = [f"`{root.path}` was built for another installation: {'; '.join(words)}" for words in unfit.values()]
    not_built = f"{spec.name} was not built for {target.name} into `{root.path}`"
    lost = [
        f"`{name}` is not known here: {why}; put it on PYTHONPATH"
        for name, why in spec.sources.untold.items()
        if why.endswith(NOT_FOUND)
    ]
    return [*(others if all(unfit.values()) else []), not_built, *lost]

"""`plan`: which kernels a spec comes to, or all that is supported."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from ..errors import UsageError
from ..precompile.compile.compilers import Compilers
from ..precompile.compile.pool import default_jobs
from ..precompile.estimate import Estimate, estimate
from ..precompile.known_bad import Doubt, doubts_of_plan
from ..precompile.plan import Plan, make_plan, selector
from ..precompile.spec.spec import target_book
from ..providers.installed import installed_toolchain
from ..providers.known_bad.listed import KnownBad
from ..providers.protocol import Provider
from ..providers.registry import DEFAULT, provider_of
from ..text.words import count
from .estimate import basis, cpu_seconds, estimate_lines, together_line
from .excluded import note_doubts, note_excluded
from .inputs import named_root, spec_and_targets
from .known_bad import doubt_lines, list_of
from .lines import plan_lines, plan_summary
from .output import conclude, note, note_lines, print_documents, print_json, print_lines

_MATRIX_TARGET = "b200"


def plan(
    spec: str | None,
    target_name: str | None,
    jobs: int | None,
    explain: bool,
    as_matrix: bool,
    module: str | None,
    fail_on_excluded: bool,
    as_json: bool,
    with_estimate: bool = False,
    cache: Path | None = None,
    known_bad: Path | None = None,
) -> None:
    """Plan a spec for each target, or print the matrix for one."""
    if cache is not None and not with_estimate:
        raise UsageError("`--cache` is about `--estimate`", "a plan by itself touches no cache")
    if as_matrix:
        if with_estimate:
            raise UsageError("`--estimate` is about a SPEC, not about `--matrix`", "leave one of them out")
        if spec is not None:
            raise UsageError("`--matrix` is about all that is supported, not about a SPEC", "leave one of them out")
        provider = DEFAULT if module is None else provider_of(module)
        _matrix(provider, target_name or _MATRIX_TARGET, jobs or default_jobs(), as_json)
        return
    if module is not None:
        raise UsageError("`--module` is about `--matrix`", "a SPEC names its module itself: `provider: {module: ...}`")
    if spec is None:
        raise UsageError("there is no SPEC", "name a YAML file or a shipped spec, or say `--matrix`")
    known = list_of(known_bad)
    _plan(spec, target_name, jobs or default_jobs(), explain, fail_on_excluded, as_json, with_estimate, cache, known)


def _plan(
    spec: str,
    target_name: str | None,
    jobs: int,
    explain: bool,
    fail_on_excluded: bool,
    as_json: bool,
    with_estimate: bool,
    cache: Path | None,
    listed: KnownBad,
) -> None:
    parsed, targets = spec_and_targets(spec, target_name)
    toolchain = installed_toolchain(parsed.provider)
    plans, doubts, estimates = [], [], []
    root, known = named_root(cache), basis(cache, parsed.provider.name) if with_estimate else None
    for target in targets:
        start, cpu = time.monotonic(), cpu_seconds()
        note(f"asking {parsed.provider.name} about {count(len(parsed.variants), 'call')}")
        with Compilers(parsed.provider, target, toolchain, jobs) as compilers:
            planned = make_plan(parsed, compilers)
        plans.append(planned)
        doubts.append(doubts_of_plan(listed.about(toolchain, target.arch), planned.kernels))
        note_doubts(parsed, planned.excluded)
        if known is not None:
            estimates.append(estimate(planned, parsed.provider, toolchain, root, known, cpu_seconds() - cpu))
        if not as_json:
            print_lines(estimate_lines(estimates[-1], root) if estimates else plan_lines(planned, explain, doubts[-1]))
            note_lines(doubt_lines(doubts[-1]))
            note_lines(plan_summary(planned, explain, time.monotonic() - start))
    if as_json:
        print_documents(_documents(plans, doubts, estimates))
    elif len(estimates) > 1:
        print_lines([together_line(estimates)])
    refused = fail_on_excluded and note_excluded([planned.excluded for planned in plans])
    conclude(refused or any(planned.broken for planned in plans))


def _documents(
    plans: Sequence[Plan], doubts: Sequence[Sequence[Doubt]], estimates: Sequence[Estimate]
) -> list[dict[str, object]]:
    found = [
        {**planned.render(), "known_bad": [doubt.render() for doubt in known]}
        for planned, known in zip(plans, doubts, strict=True)
    ]
    for document, estimated in zip(found, estimates, strict=False):
        document["estimate"] = estimated.render()
    return found


def _matrix(provider: Provider, target_name: str, jobs: int, as_json: bool) -> None:
    target = target_book().get(target_name)
    toolchain = installed_toolchain(provider)
    note(f"asking {toolchain.provider} {toolchain.provider_version} about the whole matrix for {target.name}")
    with Compilers(provider, target, toolchain, jobs) as compilers:
        matrix = provider.matrix(selector(compilers))
    if as_json:
        print_json(matrix.points)
        return
    print_lines([f"{target.name} ({target.arch}): what the installed provider selects, or its reason against it"])
    print_lines(matrix.lines)

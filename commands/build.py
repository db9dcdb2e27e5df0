"""`build`: every kernel of a spec that the cache does not have."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..cache.store import Root
from ..cache.target import Target
from ..cache.toolchain import Toolchain
from ..errors import UsageError
from ..precompile.engines.choice import EngineChoice
from ..precompile.known_bad import Guard, doubts_of_build, require_good
from ..precompile.report import BuildReport, finished_report
from ..precompile.shard import Shard
from ..providers.installed import installed_toolchain
from .excluded import note_doubts, note_excluded
from .inputs import named_root, spec_and_targets
from .known_bad import doubt_lines, list_of
from .lending import lenders
from .lines import report_lines
from .output import conclude, note_lines, print_documents

if TYPE_CHECKING:
    from ..precompile.lending import Lender
    from ..precompile.spec.spec import Spec
    from ..providers.known_bad.listed import KnownBad


def build(
    spec: str,
    cache: Path | None,
    target_name: str | None,
    jobs: int | None,
    time_limit: float,
    places: Sequence[str],
    expect: Sequence[str],
    trust_keys: Sequence[Path],
    executor: str | None,
    workers_publish: bool,
    shard: tuple[int, int] | None,
    known_bad: Path | None,
    allow_known_bad: bool,
    quiet: bool,
    fail_on_excluded: bool,
    as_json: bool,
) -> None:
    """Build for each target, one after another, what none of some places has; of a shard, its part of that."""
    if (expect or trust_keys) and not places:
        raise UsageError("`--expect` and `--trust-key` are about the places of `--from`, and none is named")
    if workers_publish and not executor:
        raise UsageError("`--workers-publish` is about the workers of `--executor`, and none is named")
    engine = EngineChoice(executor, workers_publish) if executor else None
    part = Shard(*shard) if shard else None
    parsed, targets = spec_and_targets(spec, target_name)
    root, known = named_root(cache), list_of(known_bad)
    with lenders(places, expect, trust_keys) as those:
        reports = build_all(parsed, targets, root, jobs, time_limit, quiet, those, engine, part, known, allow_known_bad)
    if as_json:
        print_documents([report.render() for report in reports])
    refused = fail_on_excluded and note_excluded([report.excluded for report in reports])
    conclude(refused or any(report.failed for report in reports))


def build_all(
    spec: Spec,
    targets: Sequence[Target],
    root: Root,
    jobs: int | None,
    time_limit: float,
    quiet: bool,
    lenders: Callable[[], Sequence[Lender]] = tuple,
    engine: EngineChoice | None = None,
    shard: Shard | None = None,
    known: KnownBad | None = None,
    allow_known_bad: bool = False,
) -> list[BuildReport]:
    """Build for each target what the cache and the lenders don't have, say how it went, and return the reports.

    `known` is the list of known-bad toolchains, if it is not the environment's.
    """
    machines = {target.machine for target in targets}
    toolchains = {machine: installed_toolchain(spec.provider, machine) for machine in sorted(machines)}
    listed = list_of() if known is None else known
    guards = {
        target: Guard(listed.about(toolchains[target.machine], target.arch), allow_known_bad) for target in targets
    }
    reports: list[BuildReport] = []
    for done in _reports(spec, guards, toolchains, root, jobs, time_limit, lenders, shard, quiet, engine):
        toolchain = toolchains[done.target.machine]
        doubts = doubts_of_build(guards[done.target].known, root, toolchain, spec.digest, done.target)
        report = replace(done, known_bad=doubts)
        reports.append(report)
        if report.failed or not quiet:
            note_lines(report_lines(report, root))
        if not quiet:
            note_lines(doubt_lines(doubts))
            note_doubts(spec, report.excluded)
    return reports


def _reports(
    spec: Spec,
    guards: Mapping[Target, Guard],
    toolchains: Mapping[str, Toolchain],
    root: Root,
    jobs: int | None,
    time_limit: float,
    lenders: Callable[[], Sequence[Lender]],
    shard: Shard | None,
    quiet: bool,
    engine: EngineChoice | None,
) -> Iterator[BuildReport]:
    """Yield the report of each target; `toolchains` are by the kind of hosts.

    What builds is imported if there is something to build, and lenders are asked then.
    """
    finished = {
        target: finished_report(root, spec, target, toolchains[target.machine], time.monotonic(), shard)
        for target in guards
    }
    if all(finished.values()):
        yield from filter(None, finished.values())
        return

    from ..precompile.build import build
    from ..precompile.buildable import require_buildable
    from ..precompile.twins import Twins
    from .progress import shown_progress

    if len(guards) > 1:
        for target, guard in guards.items():
            if not finished[target]:  # before hours are spent on the first
                require_buildable(target)
                require_good(spec, target, toolchains[target.machine], root, guard)
    lent = lenders()
    with Twins({target: toolchains[target.machine] for target in guards if not finished[target]}) as twins:
        for target, guard in guards.items():
            toolchain, progress = toolchains[target.machine], shown_progress(quiet)
            yield finished[target] or build(
                spec, target, toolchain, root, progress, jobs, time_limit, lent, engine, shard, guard, twins
            )

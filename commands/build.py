"""`build`: every kernel of a spec that the cache does not have."""

from __future__ import annotations

import sys
from pathlib import Path

from ..precompile import build as builder
from ..precompile.build import BuildReport, Progress
from ..precompile.compile.pool import default_jobs
from ..providers.installed import installed_toolchain
from .excluded import note_doubts, note_excluded
from .inputs import named_root, spec_and_targets
from .lines import report_lines
from .output import conclude, note_lines, print_documents
from .progress import BarProgress, LogProgress, NoProgress


def build(
    spec: str,
    cache: Path | None,
    target_name: str | None,
    jobs: int | None,
    time_limit: float,
    quiet: bool,
    fail_on_excluded: bool,
    as_json: bool,
) -> None:
    """Build for each target, one after another."""
    parsed, targets = spec_and_targets(spec, target_name)
    root = named_root(cache)
    toolchain = installed_toolchain(parsed.provider)
    if len(targets) > 1:
        for target in targets:
            builder.require_buildable(parsed, target, toolchain, root)  # before hours are spent on the first
    reports: list[BuildReport] = []
    for target in targets:
        report = builder.build(parsed, target, toolchain, root, _progress(quiet), jobs or default_jobs(), time_limit)
        reports.append(report)
        if report.failed or not quiet:
            note_lines(report_lines(report, root))
        if not quiet:
            note_doubts(parsed, report.excluded)
    if as_json:
        print_documents([report.render() for report in reports])
    refused = fail_on_excluded and note_excluded([report.excluded for report in reports])
    conclude(refused or any(report.failed for report in reports))


def _progress(quiet: bool) -> Progress:
    if quiet:
        return NoProgress()
    return BarProgress() if sys.stderr.isatty() else LogProgress()

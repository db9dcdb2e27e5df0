"""`report`: was every rank of a job served from the cache?"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..cache.manifest import Manifest
from ..errors import UsageError
from ..reports.job import JobReport, names, processes, ranges, who_is
from ..reports.job_page import job_page
from ..reports.prometheus import exposition
from ..reports.read import read
from ..text.words import count
from .inputs import existing_root
from .output import conclude, note_lines, print_json, print_lines
from .pages import write_page

_MOST_SHOWN = 20


def report(
    paths: Sequence[Path],
    ranks: int | None,
    job: str | None,
    is_running: bool,
    cache: Path | None,
    allow_untrusted: bool,
    html: Path | None,
    as_prometheus: bool,
    as_json: bool,
) -> None:
    """Print what the processes of a job have reported, and end with 1 unless all were served."""
    if as_prometheus and as_json:
        raise UsageError("`--prometheus` and `--json` contradict each other", "leave one out")
    if cache is not None and html is None:
        raise UsageError("`--cache` is for the matrix of a page, and there is none", "name one: `--html FILE`")
    manifests = None
    if cache is not None:
        manifests = [
            found for found in existing_root(cache, allow_untrusted).manifests() if isinstance(found, Manifest)
        ]
    told = read(paths)
    found = JobReport.of(told, ranks, job, is_running)
    if job is not None and not found.lines:
        there = ", ".join(f"`{one or '(of no name)'}`" for one in found.others or {}) or "none"
        raise UsageError(f"no process of job `{job}` has reported", f"jobs that have: {there}")
    note_lines(str(fault) for fault in found.faults)
    if as_json:
        print_json(found.render())
    elif as_prometheus:
        print_lines(exposition(found))
    else:
        print_lines(_lines(found))
    if html is not None:
        write_page(job_page(found, manifests), html)
    conclude(bool(found.findings()), hint=_hint(found))


def _lines(report: JobReport) -> Iterator[str]:
    yield _heard(report)
    on = f"{processes(len(report.lines))} on {count(len(report.hosts), 'host')}"
    strict = sum(line.strict for line in report.lines)
    how = "strict" if strict == len(report.lines) else "not strict" if not strict else f"{strict:,} of them strict"
    yield f"{on}, {how}: {_counts(report)}"
    if lookups := report.first_lookups:
        seconds = [one for one, _ in lookups]
        median, (longest, last) = statistics.median(seconds), lookups[0]
        yield f"first lookup after {median:.1f} s (median), {longest:.1f} s at most ({who_is(last)})"
    for (root, fingerprint), who in report.fingerprints.items():
        yield f"`{root}` has fingerprint {fingerprint} (told by {processes(len(who))})"
    for call in report.misses[:_MOST_SHOWN]:
        yield f"missed by {names(call.who)} ({call.missed.reason}): {call.name}"
        yield f"  {call.missed.detail}"
    if len(report.misses) > _MOST_SHOWN:
        yield f"and {len(report.misses) - _MOST_SHOWN:,} more calls: `--json` and `--html FILE` have all"
    for line, slow in report.slowest[:3]:
        yield f"slow to load: {slow.seconds * 1e3:.1f} ms, {slow.slot} {slow.kernel[:12]} in {who_is(line)}"
    if report.others:
        others = ", ".join(f"`{job or '(of no name)'}` ({number:,})" for job, number in report.others.items())
        yield f"lines of other jobs are left out: {others}; `--job NAME` takes one"
    for finding in report.findings():
        yield f"finding: {finding}"
    if not report.findings():
        yield "every rank was served from the cache" if report.expected else "every process was served from the cache"


def _heard(report: JobReport) -> str:
    job = f"job {report.job}: " if report.job else ""
    if report.expected is None:
        ranks = f", ranks {ranges(sorted(report.heard))}" if report.heard else ""
        return f"{job}{len(report.lines):,} heard from{ranks}; how many ranks there are nobody says: `--ranks N`"
    return f"{job}{count(report.expected, 'rank')}, {len(report.heard):,} heard from, {len(report.missing):,} not"


def _counts(report: JobReport) -> str:
    parts = [
        f"{count(int(report.total('resolved')), 'kernel')} resolved in {report.total('load_seconds') * 1e3:,.1f} ms",
        f"{report.times_missed:,} missed",
        f"{report.total('compiled'):,.0f} compiled",
        f"{report.total('saved_seconds'):,.1f} s of compiling saved",
    ]
    return ", ".join(parts)


def _hint(report: JobReport) -> str:
    if report.missing and not report.incomplete:
        return "a rank that is not heard from has no loader, has not imported the provider, or was killed before it did"
    if report.missed or report.compiled:
        return "put what was missed into the spec and build it"
    if report.incomplete:
        return "of a job that still runs, say `--running`"
    return "the findings say what is wrong"

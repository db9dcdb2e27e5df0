"""A job's report as a page: was every rank served, and if not, which one and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from ..cache.key import KernelId
from ..cache.manifest import Manifest
from ..text.words import count
from .coverage import Matrix, matrices
from .html import Content, Html, bar, element, page, section, table, tiles
from .job import JobReport, MissedCall, names, who_is
from .matrix import coverage_section

_MOST_CELLS = 4096
_MOST_ROWS = 200

_GOOD, _BAD, _ODD = "cell-built", "cell-missed", "cell-excluded"
_KEY = (
    (_GOOD, "\N{CHECK MARK} served", "everything came from the cache"),
    (_BAD, "\N{MULTIPLICATION SIGN} not heard", "no line of it is in the report"),
    (_BAD, "! missed", "missed or compiled a kernel, or asked for a compile"),
    (_ODD, "\N{HORIZONTAL ELLIPSIS} not ended", "killed, or still running when its line was written"),
    (_ODD, "\N{EN DASH} idle", "looked no kernel up"),
)


def job_page(report: JobReport, manifests: Sequence[Manifest] | None = None) -> Html:
    """Return the page; with the manifests of the job's cache, its coverage matrix says what was built, too."""
    title = f"Job {report.job}" if report.job else "A job"
    users = Counter[KernelId](kernel for line in report.lines for kernel in set(line.kernels))
    drawn = _touched(matrices(manifests or (), report.misses), users)
    return page(
        f"{title}: {'served' if not report.findings() else 'not all served'}",
        element("h1", f"{title}: was every rank served?"),
        element("p", _when(report), class_="where"),
        verdict(report.findings(), "Every rank was heard from, and took all its kernels from the cache."),
        tiles(_facts(report)),
        _ranks(report),
        _misses(report),
        coverage_section(drawn, users if manifests is not None else None) if drawn else None,
        _hosts(report),
        _loads(report),
        _caches(report),
        faults_section([str(fault) for fault in report.faults]),
    )


def _touched(found: Sequence[Matrix], users: Mapping[KernelId, int]) -> Sequence[Matrix]:
    """Return the matrices of the archs that the job ran on, as far as that shows; else all."""

    def is_touched(matrix: Matrix) -> bool:
        return any(cell.missed or not users.keys().isdisjoint(cell.kernels) for cell in matrix.cells.values())

    return [matrix for matrix in found if is_touched(matrix)] or found


def verdict(findings: Sequence[str], good: str) -> Html:
    """Return in a box what is wrong, or that nothing is."""
    if not findings:
        return element("div", element("b", f"\N{CHECK MARK} {good}"), class_="verdict good", role="status")
    found = f"\N{MULTIPLICATION SIGN} {count(len(findings), 'finding')}"
    listed = element("ul", (element("li", finding) for finding in findings))
    return element("div", element("b", found), listed, class_="verdict bad", role="status")


def faults_section(faults: Sequence[str]) -> Html | None:
    """Return what could not be read, if there is something."""
    if not faults:
        return None
    shown = [[element("code", fault)] for fault in faults[:_MOST_ROWS]]
    return section("What could not be read", table([f"of {len(faults):,}"], shown), note="The rest was used.")


def _when(report: JobReport) -> str:
    if not report.lines:
        return "Nobody has reported."
    first, last = min(line.started for line in report.lines), max(line.time for line in report.lines)
    return f"{count(len(report.hosts), 'host')}. Started {_short(first)}, last heard from {_short(last)} (UTC)."


def _short(time: str) -> str:
    return time[:19].replace("T", " ")


def _facts(report: JobReport) -> Iterator[tuple[str, Content, str]]:
    heard, expected = len(report.heard), report.expected
    if expected is None:
        yield "processes heard from", f"{len(report.lines):,}", ""
    else:
        yield "ranks heard from", f"{heard:,} of {expected:,}", "bad" if report.missing else "good"
    yield "kernels from the cache", f"{report.total('resolved'):,.0f}", ""
    yield "missed", f"{report.times_missed:,}", "bad" if report.times_missed else "good"
    compiled = report.total("compiled")
    yield "compiled", f"{compiled:,.0f}", "bad" if compiled else "good"
    yield "not ended", f"{sum(not line.ended for line in report.lines):,}", "bad" if report.incomplete else ""
    yield "strict", _share(sum(line.strict for line in report.lines), len(report.lines)), ""
    yield "compiling saved", _seconds(report.total("saved_seconds")), ""
    loads = max((line.stats.load_seconds for line in report.lines), default=0.0)
    yield "longest wait for kernels", _seconds(loads), ""


def _share(number: int, total: int) -> str:
    return "all" if number == total and total else "none" if not number else f"{number:,} of {total:,}"


def _seconds(seconds: float) -> str:
    if seconds >= 7200:
        return f"{seconds / 3600:.1f} h"
    if seconds >= 120:
        return f"{seconds / 60:.1f} min"
    return f"{seconds:.1f} s" if seconds >= 1 or not seconds else f"{seconds * 1e3:.1f} ms"


def _ranks(report: JobReport) -> Html | None:
    ranks = sorted({*range(min(report.expected or 0, _MOST_CELLS)), *list(report.heard)[:_MOST_CELLS]})
    if not ranks:
        return None
    cells = [_rank(report, rank) for rank in ranks]
    key = (element("li", element("span", mark, class_=kind), told) for kind, mark, told in _KEY)
    more = (report.expected or 0) - _MOST_CELLS
    return section(
        "Ranks",
        element("ul", cells, class_="ranks"),
        element("p", f"and {more:,} more, which the lists of this page name", class_="note") if more > 0 else None,
        element("ul", *key, class_="key"),
    )


def _rank(report: JobReport, rank: int) -> Html:
    lines = report.heard.get(rank, ())
    mark, kind, told = _state(report, rank)
    hosts = ", ".join(dict.fromkeys(line.placement.host for line in lines))
    title = f"rank {rank}: {told}{f' ({hosts})' if hosts else ''}"
    return element("li", f"{mark} {rank}", class_=kind, title=title, aria_label=title)


def _state(report: JobReport, rank: int) -> tuple[str, str, str]:
    lines = report.heard.get(rank, ())
    if not lines:
        return "\N{MULTIPLICATION SIGN}", _BAD, "not heard from"
    if any(line.stats.missed or line.stats.compiled or line.stats.refused for line in lines):
        return "!", _BAD, "missed, compiled, or asked for a compile"
    if any(not line.ended for line in lines) and not report.is_running:
        return "\N{HORIZONTAL ELLIPSIS}", _ODD, "has not said that it ended"
    if rank in report.idle:
        return "\N{EN DASH}", _ODD, "has looked no kernel up"
    return "\N{CHECK MARK}", _GOOD, f"served, {sum(line.stats.resolved for line in lines):,} kernels"


def _misses(report: JobReport) -> Html | None:
    if not report.times_missed:
        return None
    rows: list[list[Content]] = [
        [
            f"{len(call.who):,}",
            element("code", call.missed.reason),
            element(
                "div", element("code", call.name), element("div", call.missed.detail, class_="note"), class_="wide"
            ),
            call.missed.arch or "\N{EM DASH}",
            f"{call.missed.count:,}",
            element("div", names(call.who), class_="wide"),
        ]
        for call in report.misses[:_MOST_ROWS]
    ]
    note = "The calls that the cache had no kernel for. Put them into a spec and build it."
    return section("Missed", table(["processes", "reason", "call", "arch", "lookups", "who"], rows), note=note)


def _call(call: MissedCall) -> Html:
    why = element("div", call.missed.detail, class_="note")
    return element("div", element("code", call.name), why, class_="wide")


def _hosts(report: JobReport) -> Html | None:
    if not report.lines:
        return None
    rows: list[list[Content]] = [
        [
            host,
            f"{len(lines):,}",
            element("div", names(lines), class_="wide"),
            f"{sum(line.stats.resolved for line in lines):,}",
            f"{sum(sum(line.stats.missed.values()) for line in lines):,}",
            f"{sum(not line.ended for line in lines):,}",
        ]
        for host, lines in list(report.hosts.items())[:_MOST_ROWS]
    ]
    heads = ["host", "processes", "who", "resolved", "missed", "not ended"]
    return section("Hosts", table(heads, rows))


def _loads(report: JobReport) -> Html | None:
    if not report.slowest:
        return None
    longest = report.slowest[0][1].seconds or 1.0
    rows: list[list[Content]] = [
        [
            bar(slow.seconds / longest, _seconds(slow.seconds)),
            who_is(line),
            slow.slot,
            element("code", slow.kernel[:12]),
        ]
        for line, slow in report.slowest
    ]
    lookups = report.first_lookups
    first = (
        f" The last process to ask for a kernel was {who_is(lookups[0][1])}, after {_seconds(lookups[0][0])}."
        if lookups
        else ""
    )
    return section(
        "Slowest loads", table(["waited", "who", "slot", "kernel"], rows), note=f"What a process waited for.{first}"
    )


def _caches(report: JobReport) -> Html | None:
    if not report.fingerprints:
        return None
    rows: list[list[Content]] = [
        [element("code", path), element("code", fingerprint), f"{len(who):,}"]
        for (path, fingerprint), who in list(report.fingerprints.items())[:_MOST_ROWS]
    ]
    note = "As far as it is known: a seal says it to every process, else one of each host has looked."
    return section("Caches", table(["root", "fingerprint", "processes"], rows), note=note)

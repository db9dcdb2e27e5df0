"""A job's report in Prometheus's text format, version 0.0.4: for a node exporter's folder, or a push gateway."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from ..loader.line import Line
from .job import JobReport

_PREFIX = "fa4_precompile"

_Sample = tuple[Mapping[str, str], float]
_Value = Callable[[Line], float]

_OF_A_PROCESS: tuple[tuple[str, str, _Value], ...] = (
    ("resolved", "Kernels that came from the cache.", lambda line: line.stats.resolved),
    ("compiled", "Kernels that were compiled in the process.", lambda line: line.stats.compiled),
    ("refused", "Compiles that strict mode forbade.", lambda line: line.stats.refused),
    ("load_seconds", "What the process waited for its kernels.", lambda line: line.stats.load_seconds),
    ("saved_seconds", "What compiling its kernels took when they were built.", lambda line: line.stats.saved_seconds),
    ("ended", "1 if the process has said that it ended.", lambda line: line.ended),
    ("strict", "1 if nothing could be compiled in it.", lambda line: line.strict),
)


def exposition(report: JobReport) -> Iterator[str]:
    """Yield the lines. All are gauges: a job's numbers begin anew with each job."""
    job = {"job_id": report.job}
    for name, told, samples in _families(report, job):
        full = f"{_PREFIX}_{name}"
        yield f"# HELP {full} {told}"
        yield f"# TYPE {full} gauge"
        for labels, value in samples:
            inner = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
            yield f"{full}{{{inner}}} {_number(value)}"


def _families(report: JobReport, job: Mapping[str, str]) -> Iterator[tuple[str, str, Sequence[_Sample]]]:
    yield "served", "1 if every rank was heard from and served from the cache.", [(job, not report.findings())]
    if report.expected is not None:
        yield "ranks_expected", "Ranks that the job has.", [(job, report.expected)]
    yield "ranks_heard", "Ranks that have reported.", [(job, len(report.heard))]
    yield "ranks_missing", "Ranks that have not.", [(job, len(report.missing))]
    yield "ranks_idle", "Ranks that have looked no kernel up.", [(job, len(report.idle))]
    yield "processes", "Processes that have reported.", [(job, len(report.lines))]
    yield (
        "processes_not_ended",
        "Processes that have not said that they ended.",
        [(job, sum(not line.ended for line in report.lines))],
    )
    yield "report_faults", "Lines and files of the report that can't be used.", [(job, len(report.faults))]
    for name, told, value in _OF_A_PROCESS:
        yield f"process_{name}", told, [({**job, **_labels(line)}, value(line)) for line in report.lines]
    yield (
        "process_missed",
        "Keys that the cache had no kernel for, by reason.",
        [
            ({**job, **_labels(line), "reason": reason}, number)
            for line in report.lines
            for reason, number in sorted(line.stats.missed.items())
        ],
    )
    yield (
        "process_first_lookup_seconds",
        "From the loader's start to its first lookup.",
        [
            ({**job, **_labels(line)}, line.first_lookup_seconds)
            for line in report.lines
            if line.first_lookup_seconds is not None
        ],
    )


def _labels(line: Line) -> dict[str, str]:
    rank = line.placement.rank
    return {"host": line.placement.host, "rank": "" if rank is None else str(rank), "process": str(line.process)}


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    return repr(float(value)) if isinstance(value, float) else str(int(value))

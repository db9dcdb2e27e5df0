"""A job, put together from what its processes have reported: who was heard from, and who was served."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..loader.line import Line
from ..loader.stats import Missed, Slow
from ..text.words import count, one_line
from .read import Fault, Told

SCHEMA = "fa4-precompile/report/1"

_MOST_SLOW = 10
_MOST_RANGES = 12


@dataclass(frozen=True)
class MissedCall:
    """A call that processes missed alike: `missed.count` is of all of them."""

    missed: Missed
    who: Sequence[Line]

    @property
    def name(self) -> str:
        """The call in words."""
        call = one_line(self.missed.call) if self.missed.call is not None else "a call whose axes can't be told"
        return f"{self.missed.slot} of {call}"


@dataclass(frozen=True)
class JobReport:
    """What a job has reported.

    Attributes:
        job: what its scheduler calls it; empty if nobody says.
        lines: of its processes, by rank.
        faults: what could not be read; of whichever job.
        expected: how many ranks there are; None if that is not known.
        others: how many processes other jobs have in these files, by job.
        is_running: whether the job is said to run still, so that no process need have ended.
    """

    job: str
    lines: Sequence[Line]
    faults: Sequence[Fault] = ()
    expected: int | None = None
    others: Mapping[str, int] | None = None
    is_running: bool = False

    @classmethod
    def of(cls, told: Told, ranks: int | None = None, job: str | None = None, is_running: bool = False) -> JobReport:
        """Return the report of a job, by default of the one that was started last."""
        by_job: dict[str, list[Line]] = {}
        for line in told.lines:
            by_job.setdefault(line.placement.job, []).append(line)
        if job is None:
            job = max(by_job, key=lambda one: max(line.started for line in by_job[one]), default="")
        lines = sorted(by_job.pop(job, []), key=_order)
        sizes = [line.placement.world_size for line in lines if line.placement.world_size is not None]
        expected = ranks if ranks is not None else max(sizes, default=None)
        others = {name: len(of_it) for name, of_it in by_job.items()}
        return cls(job, lines, told.faults, expected, others, is_running)

    # Who was heard from

    @cached_property
    def heard(self) -> Mapping[int, Sequence[Line]]:
        """The processes of each rank that was heard from. A job of one process with no launcher is rank 0."""
        found: dict[int, list[Line]] = {}
        for line in self.lines:
            if line.placement.rank is not None:
                found.setdefault(line.placement.rank, []).append(line)
        if not found and self.expected == 1 and self.lines:
            found[0] = list(self.lines)
        return found

    @property
    def missing(self) -> list[int]:
        """The ranks that were not heard from."""
        return [rank for rank in range(self.expected or 0) if rank not in self.heard]

    @property
    def unexpected(self) -> list[int]:
        """The ranks that were heard from, beyond those that there are said to be."""
        return [] if self.expected is None else sorted(rank for rank in self.heard if rank >= (self.expected or 0))

    @cached_property
    def hosts(self) -> Mapping[str, Sequence[Line]]:
        """The processes of each host."""
        found: dict[str, list[Line]] = {}
        for line in self.lines:
            found.setdefault(line.placement.host, []).append(line)
        return dict(sorted(found.items()))

    # How they were served

    @property
    def incomplete(self) -> list[Line]:
        """The processes that have not said that they ended: killed, or still running."""
        return [] if self.is_running else [line for line in self.lines if not line.ended]

    @property
    def idle(self) -> list[int]:
        """The ranks none of whose processes has looked a kernel up: nothing shows that they were served."""
        return sorted(rank for rank, lines in self.heard.items() if _is_idle(lines) and not self.is_running)

    @property
    def missed(self) -> list[Line]:
        """The processes that missed a kernel."""
        return [line for line in self.lines if line.stats.missed]

    @property
    def compiled(self) -> list[Line]:
        """The processes that compiled one."""
        return [line for line in self.lines if line.stats.compiled]

    @property
    def refused(self) -> list[Line]:
        """The processes in which strict mode forbade a compile."""
        return [line for line in self.lines if line.stats.refused]

    @cached_property
    def misses(self) -> Sequence[MissedCall]:
        """The calls that were missed, those of most processes first."""
        found: dict[str, list[tuple[Line, Missed]]] = {}
        for line in self.lines:
            for one in line.misses:
                name = json.dumps([one.slot, one.reason, one.arch, one.call], sort_keys=True)
                found.setdefault(name, []).append((line, one))
        calls = []
        for of_call in found.values():
            first = of_call[0][1]
            times = sum(one.count for _, one in of_call)
            missed = Missed(first.slot, first.reason, first.arch, first.call, first.detail, times)
            calls.append(MissedCall(missed, [line for line, _ in of_call]))
        return sorted(calls, key=lambda call: (-len(call.who), call.name, call.missed.reason, call.missed.arch))

    @property
    def slowest(self) -> list[tuple[Line, Slow]]:
        """The loads that took longest, with who waited for them."""
        loads = [(line, slow) for line in self.lines for slow in line.slowest]
        return sorted(loads, key=lambda load: -load[1].seconds)[:_MOST_SLOW]

    @property
    def first_lookups(self) -> list[tuple[float, Line]]:
        """The seconds to the first lookup, the longest first, of those that had one."""
        known = [(line.first_lookup_seconds, line) for line in self.lines if line.first_lookup_seconds is not None]
        return sorted(known, key=lambda one: -one[0])

    @cached_property
    def fingerprints(self) -> Mapping[tuple[str, str], Sequence[Line]]:
        """Who was served from which contents: processes by the path of a root and its fingerprint, as far as known."""
        found: dict[tuple[str, str], list[Line]] = {}
        for line in self.lines:
            for root in line.roots:
                if root.fingerprint:
                    found.setdefault((root.path, root.fingerprint), []).append(line)
        return found

    def total(self, name: str) -> float:
        """Return the sum of a number of `Stats` over all processes."""
        return float(sum(getattr(line.stats, name) for line in self.lines))

    @property
    def times_missed(self) -> int:
        """How many keys were missed, over all processes."""
        return sum(sum(line.stats.missed.values()) for line in self.lines)

    def findings(self) -> list[str]:
        """Return what is wrong, a sentence each; nothing if all ranks were heard from and served from the cache."""
        found = []
        if not self.lines:
            found.append("no process has reported")
        if self.lines and self.missing:
            left, ranks = len(self.missing), f"{count(self.expected or 0, 'rank')}"
            found.append(f"{left:,} of {ranks} {_is(left)} not heard from: {ranges(self.missing)}")
        elif self.missing:
            found.append(f"none of {count(self.expected or 0, 'rank')} is heard from")
        if self.unexpected:
            found.append(f"there are more than {count(self.expected or 0, 'rank')}: {ranges(self.unexpected)}")
        if self.idle:
            left, ranks = len(self.idle), count(len(self.heard), "rank")
            found.append(f"{left:,} of {ranks} {_has(left)} looked no kernel up: {ranges(self.idle)}")
        elif self.lines and not self.heard and _is_idle(self.lines) and not self.is_running:
            found.append("no process has looked a kernel up")
        for who, what in (
            (self.missed, "missed a kernel"),
            (self.compiled, "compiled a kernel"),
            (self.refused, "asked for a compile that strict mode forbids"),
            (self.incomplete, "ended without saying so (killed, or still running)"),
        ):
            if who:
                found.append(f"{count_of(who, len(self.lines))} {what}: {names(who)}")
        if self.faults:
            found.append(f"{count(len(self.faults), 'part')} of the report can't be used, the first: {self.faults[0]}")
        return found

    def render(self) -> dict[str, object]:
        """Return the report as JSON."""
        lookups = [seconds for seconds, _ in self.first_lookups]
        return {
            "schema": SCHEMA,
            "job": self.job,
            "served": not self.findings(),
            "findings": self.findings(),
            "ranks": {
                "expected": self.expected,
                "heard": sorted(self.heard),
                "missing": self.missing,
                "unexpected": self.unexpected,
                "idle": self.idle,
            },
            "processes": len(self.lines),
            "hosts": {host: len(lines) for host, lines in self.hosts.items()},
            "strict": sum(line.strict for line in self.lines),
            "incomplete": [_who(line) for line in self.incomplete],
            "missed": [_who(line) for line in self.missed],
            "compiled": [_who(line) for line in self.compiled],
            "refused": [_who(line) for line in self.refused],
            "totals": {
                "resolved": self.total("resolved"),
                "preloaded": self.total("preloaded"),
                "missed": self.times_missed,
                "compiled": self.total("compiled"),
                "stored": self.total("stored"),
                "refused": self.total("refused"),
                "load_seconds": self.total("load_seconds"),
                "compile_seconds": self.total("compile_seconds"),
                "saved_seconds": self.total("saved_seconds"),
            },
            "misses": [
                {
                    "slot": call.missed.slot,
                    "reason": call.missed.reason,
                    "arch": call.missed.arch,
                    "call": call.missed.call,
                    "detail": call.missed.detail,
                    "count": call.missed.count,
                    "processes": [_who(line) for line in call.who],
                }
                for call in self.misses
            ],
            "slowest": [
                {**_who(line), "kernel": slow.kernel, "slot": slow.slot, "seconds": slow.seconds}
                for line, slow in self.slowest
            ],
            "first_lookup_seconds": {"median": statistics.median(lookups), "longest": lookups[0]} if lookups else None,
            "caches": [
                {"root": root, "fingerprint": fingerprint, "processes": len(who)}
                for (root, fingerprint), who in self.fingerprints.items()
            ],
            "toolchains": sorted({toolchain for line in self.lines for toolchain in line.toolchains}),
            "faults": [{"file": one.file, "line": one.line, "problem": one.problem} for one in self.faults],
            "other_jobs": dict(self.others or {}),
        }


def who_is(line: Line) -> str:
    """Return what a process is called: its rank, else its number and host."""
    rank = line.placement.rank
    return f"process {line.process} on {line.placement.host}" if rank is None else f"rank {rank}"


def names(lines: Iterable[Line]) -> str:
    """Return what processes are called, ranks as ranges; of many, the first."""
    found = list(lines)
    ranks = sorted({line.placement.rank for line in found if line.placement.rank is not None})
    others = [who_is(line) for line in found if line.placement.rank is None]
    words = [f"rank{'' if len(ranks) == 1 else 's'} {ranges(ranks)}"] if ranks else []
    more = [f"and {len(others) - 4:,} more processes"] if len(others) > 4 else []
    return ", ".join([*words, *others[:4], *more])


def ranges(numbers: Sequence[int]) -> str:
    """Return sorted numbers as text: `0-7, 9`; of many ranges, the first."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][-1] + 1:
            found[-1] = [found[-1][0], number]
        else:
            found.append([number])
    shown = ["-".join(map(str, one)) for one in found[:_MOST_RANGES]]
    left = sum(one[-1] - one[0] + 1 for one in found[_MOST_RANGES:])
    return ", ".join([*shown, *([f"and {left:,} more"] if left else [])])


def count_of(lines: Sequence[Line], total: int) -> str:
    """Return how many processes of all these are."""
    return f"{len(lines):,} of {processes(total)}"


def processes(number: int) -> str:
    """Return `1 process`, `2 processes`."""
    return f"{number:,} process{'' if number == 1 else 'es'}"


def _is_idle(lines: Sequence[Line]) -> bool:
    return all(line.first_lookup_seconds is None for line in lines)


def _has(number: int) -> str:
    return "has" if number == 1 else "have"


def _is(number: int) -> str:
    return "is" if number == 1 else "are"


def _order(line: Line) -> tuple[float, str, int, str]:
    rank = line.placement.rank
    return float("inf") if rank is None else rank, line.placement.host, line.process, line.started


def _who(line: Line) -> dict[str, object]:
    return {"rank": line.placement.rank, "host": line.placement.host, "process": line.process}

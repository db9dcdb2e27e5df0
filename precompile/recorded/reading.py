"""Reading recordings: whatever of them is whole, and in words what is not."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...cache.key import Facts, KeyText
from ...cache.recording import ENDING, End, Lookup, Process, Served, parse_line
from ...errors import RecordError, UsageError
from ...providers.call import Identity

MOST_BYTES = 64 << 20
"""Of one file: a process that looks up a hundred thousand kernels writes as much."""

_MOST_SHOWN = 3


@dataclass(frozen=True)
class Recorded:
    """What one process wrote.

    Attributes:
        file: its file.
        process: who it was.
        served: what it looked kernels up of, by package.
        lookups: the kernels.
        is_complete: whether it ended by itself, and all that it says to have written is there.
    """

    file: Path
    process: Process
    served: dict[str, Served]
    lookups: Sequence[Lookup]
    is_complete: bool


@dataclass
class Recordings:
    """What the processes of one or several recordings wrote, and what of the files can't be used, in words."""

    processes: list[Recorded] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)

    @property
    def incomplete(self) -> list[Recorded]:
        """Return the processes whose file has no end: they were killed, or run still."""
        return [one for one in self.processes if not one.is_complete]


def identity_of(slot: str, key: KeyText, facts: Facts) -> Identity:
    """Return what no other kernel of a target has."""
    return slot, key, tuple(sorted(facts.items()))


def read_recordings(places: Sequence[Path]) -> Recordings:
    """Read all files of some folders, or single files. Raises `UsageError` for a place where there is none."""
    found = Recordings()
    for place in places:
        files = sorted(_files(place))
        if not files:
            raise UsageError(
                f"`{place}` has no recording", "`run --record FOLDER -- COMMAND` writes one: files that end in `.jsonl`"
            )
        for file in files:
            _read(file, found)
    return found


def _files(place: Path) -> Iterator[Path]:
    try:
        if not place.is_dir():
            return iter([place] if place.is_file() else [])
        return iter(
            [Path(entry.path) for entry in os.scandir(place) if entry.name.endswith(ENDING) and entry.is_file()]
        )
    except OSError as error:
        raise UsageError(f"`{place}` can't be read: {error.strerror}", "name the folder of a recording") from None


def _read(file: Path, found: Recordings) -> None:
    try:
        with file.open("rb") as opened:
            data = opened.read(MOST_BYTES + 1)
    except OSError as error:
        found.findings.append(f"`{file}`: can't be read: {error.strerror}; it is left out")
        return
    if len(data) > MOST_BYTES:
        found.findings.append(f"`{file}`: is larger than {MOST_BYTES >> 20} MiB; it is left out")
        return
    *lines, rest = data.split(b"\n")
    faults: list[str] = []
    processes: list[Process] = []
    served: dict[str, Served] = {}
    lookups: list[Lookup] = []
    ends: list[End] = []
    for number, text in enumerate(lines, 1):
        try:
            line = parse_line(f"{file}:{number}", text)
        except RecordError as error:
            faults.append(f"{error}; the line is left out")
            continue
        match line:
            case Process():
                processes.append(line)
            case Served():
                served.setdefault(line.package, line)
            case Lookup():
                lookups.append(line)
            case End():
                ends.append(line)
    if rest:
        faults.append(f"`{file}:{len(lines) + 1}`: is torn: the process ended while it wrote this line; it is left out")
    if not processes:
        what = faults[0] if faults and lines else f"`{file}`: says of no process who it was"
        found.findings.append(f"{what}; the file is none of a recording, or its first line is damaged: it is left out")
        return
    orphans = {lookup.package for lookup in lookups} - served.keys()
    faults += [
        f"`{file}`: does not say what `{package}` is; what it looked up there is left out" for package in orphans
    ]
    found.findings += _shortened(file, faults)
    whole = [lookup for lookup in lookups if lookup.package in served]
    is_complete = bool(ends) and ends[-1].lookups == len(whole) and not faults
    found.processes.append(Recorded(file, processes[0], served, whole, is_complete))


def _shortened(file: Path, faults: Sequence[str]) -> list[str]:
    more = len(faults) - _MOST_SHOWN
    return [*faults[:_MOST_SHOWN], *([f"`{file}`: and {more} more such lines"] if more > 0 else [])]

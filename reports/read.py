"""Reading reports: what is damaged is said with its place, and the rest is used."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import RecordError
from ..loader.line import Line
from ..loader.report_files import files_of, open_without_waiting

_MOST_BYTES = 16 << 20  # of a line: two hundred misses and ten thousand kernels are a hundredth of it


@dataclass(frozen=True)
class Fault:
    """A line of a report that can't be used, or a file: then `line` is 0, else it counts from 1."""

    file: str
    line: int
    problem: str

    def __str__(self) -> str:
        return f"{self.file}{f':{self.line}' if self.line else ''}: {self.problem}"


@dataclass(frozen=True)
class Told:
    """What was read: the last line of each process, in no particular order, and what could not be used."""

    lines: Sequence[Line]
    faults: Sequence[Fault]


def read(paths: Sequence[Path]) -> Told:
    """Read reports: files, folders, and patterns with `{host}`, `{rank}` or `{process}`."""
    last: dict[tuple[str, int, str], Line] = {}
    faults: list[Fault] = []
    for path in paths:
        for found in _read(path):
            if isinstance(found, Fault):
                faults.append(found)
                continue
            process = found.placement.host, found.process, found.started
            if process not in last or last[process].time <= found.time:
                last[process] = found
    return Told(list(last.values()), faults)


def _read(path: Path) -> Iterator[Line | Fault]:
    try:
        files = files_of(path)
    except OSError as error:
        yield Fault(str(path), 0, f"can't be read: {error.strerror}")
        return
    if not files:
        yield Fault(str(path), 0, "has no report: no process has written one there")
    for file in files:
        yield from _read_file(file)


def _read_file(file: Path) -> Iterator[Line | Fault]:
    try:
        with open(file, "rb", opener=open_without_waiting) as opened:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                yield Fault(str(file), 0, "is no file")
                return
            number = 0
            while data := opened.readline(_MOST_BYTES + 1):
                number += 1
                if len(data) > _MOST_BYTES:
                    yield Fault(str(file), number, f"is no line of a report: longer than {_MOST_BYTES >> 20} MiB")
                    while data and not data.endswith(b"\n"):
                        data = opened.readline(_MOST_BYTES)
                    continue
                yield _parsed(str(file), number, data)
            if number == 0:
                yield Fault(str(file), 0, "is empty: no process has written a line")
    except FileNotFoundError:
        yield Fault(str(file), 0, "is not there: no process has written it")
    except OSError as error:
        yield Fault(str(file), 0, f"can't be read: {error.strerror}")


def _parsed(file: str, number: int, data: bytes) -> Line | Fault:
    try:
        return Line.parse(file, data)
    except RecordError as error:
        return Fault(file, number, f"is no line of a report: {error.reason}")

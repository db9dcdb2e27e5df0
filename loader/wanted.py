"""Which kernels a job wants before it needs them, and when it wants them: what `preload` and its variable can say."""

from __future__ import annotations

import enum
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..cache.codec import is_digest
from ..cache.key import KernelId
from ..errors import UsageError
from .report_files import files_of, open_without_waiting

KERNELS = "kernels"
"""What a line of a report calls the ids of the kernels that its process resolved."""

_ENDING = ".jsonl"
_MOST_BYTES = 16 << 20  # of a report, from its end: a thousand ranks of a job with two hundred kernels
_FLAGS = ("true", "false", "yes", "no", "on", "off", "none")
_ALLOWED = (
    f"allowed: 0, background, 1, the name of a spec, or a report, with a `/` in its name or `{_ENDING}` at its end"
)


class When(enum.Enum):
    """When kernels are loaded."""

    NEEDED = "0"
    """When they are looked up."""

    BACKGROUND = "background"
    """By a thread, while the job does other things (the default)."""

    ATTACHED = "1"
    """When the provider has been imported, before its import ends."""


@dataclass(frozen=True)
class Wanted:
    """Which kernels: all that were built for the device, those of one spec, or those that a report names."""

    spec: str | None = None
    report: Path | None = None

    @classmethod
    def parse(cls, name: str) -> Wanted:
        """Read the name of a spec or of a report. Raises `UsageError`."""
        if "\0" in name or not name.strip():
            raise UsageError(f"{name!r} names neither a spec nor a report", _ALLOWED)
        if os.sep in name or name.endswith(_ENDING):  # a folder is one with a `/`, and a pattern one that ends so
            return cls(report=Path(name).absolute())
        return cls(spec=name)

    @property
    def name(self) -> str:
        """What was named; empty for all."""
        return str(self.report or "") or self.spec or ""

    def reported(self) -> list[KernelId]:
        """Return the kernels that the report names, the last run's first. Raises `OSError` if it can't be read.

        Of a folder or a pattern all files are read, the newest first.
        """
        found: dict[KernelId, None] = {}
        left = _MOST_BYTES
        for file in files_of(self.report) if self.report is not None else ():
            lines = _last_lines(file, left)
            left -= sum(map(len, lines))
            found.update(dict.fromkeys(_reported(lines)))
            if left <= 0:
                break
        return list(found)


@dataclass(frozen=True)
class Preloading:
    """When which kernels are loaded, if it is not when they are looked up."""

    when: When = When.BACKGROUND
    wanted: Wanted = Wanted()

    @classmethod
    def parse(cls, value: str, called: str) -> Preloading:
        """Read a setting, `called` so to the person who wrote it. Raises `UsageError` if it can't be meant."""
        if value in [when.value for when in When]:
            return cls(When(value))
        is_number = value.strip().isdecimal()
        if is_number or value.strip().lower() in (*_FLAGS, When.BACKGROUND.value) or not value.strip():
            raise UsageError(f"`{called}={value}` can't be meant", _ALLOWED)
        return cls(When.BACKGROUND, Wanted.parse(value))

    def render(self) -> str:
        """Return what `parse` reads as the same."""
        return self.wanted.name or self.when.value


def _last_lines(report: Path, most: int) -> list[bytes]:
    with open(report, "rb", opener=open_without_waiting) as file:
        if file.seekable():
            file.seek(max(0, os.fstat(file.fileno()).st_size - most))
        return (file.read(most) or b"").splitlines()


def _reported(lines: Sequence[bytes]) -> Iterator[KernelId]:
    for line in reversed(lines):
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):  # of a process that was killed, or the half of one
            continue
        kernels = content.get(KERNELS) if isinstance(content, dict) else None
        for kernel in kernels if isinstance(kernels, list) else ():
            if isinstance(kernel, str) and is_digest(kernel):
                yield KernelId(kernel)

"""A figure of a benchmark."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """What was measured, in which unit."""

    name: str
    value: float
    unit: str

    def line(self) -> str:
        """Return the row as text."""
        return f"{self.name}: {self.shown()}"

    def shown(self) -> str:
        """Return the value with three digits, and the unit."""
        value = f"{self.value:,.0f}" if abs(self.value) >= 100 else f"{self.value:.3g}"
        return f"{value} {self.unit}".strip()

    def render(self) -> dict[str, object]:
        """Return the row as JSON."""
        return asdict(self)


def print_rows_of_cache(description: str | None, rows: Callable[[Path], Iterable[Row]]) -> None:
    """Print the rows of a benchmark whose only argument is a cache directory, as they come."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path, metavar="CACHE")
    for row in rows(parser.parse_args().cache):
        print(row.line())

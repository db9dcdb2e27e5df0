"""All figures that need no GPU, beside those of the run before: `make bench`.

    python benchmarks/figures.py            measure, print, and write benchmarks/results/DATE.json
    python benchmarks/figures.py planning   measure just that; what is not measured stays, with its date
    python benchmarks/figures.py --table    print the README's table from the newest of these files

It takes about half an hour on two idle cores, of which planning takes one minute; beside other work only ratios mean
anything.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
_GROUPS = ("building", "planning", "reading")
_VERSIONS = ("flash-attn-4", "nvidia-cutlass-dsl", "quack-kernels", "torch")


def table(result: dict[str, Any]) -> str:
    """Return a result as a table in Markdown."""
    from rows import Row

    rows = [(Row(row["name"], row["value"], row["unit"]), row.get("date", result["date"])) for row in result["rows"]]
    lines = [f"| {row.name} | {row.shown()} | {date} |" for row, date in rows]
    return "\n".join(["| what | figure | measured |", "|---|---|---|", *lines])


def newest() -> dict[str, Any]:
    """Return the newest result."""
    return dict(json.loads(max(RESULTS.glob("*.json")).read_text()))


def _measured(groups: Sequence[str]) -> Iterator[Any]:
    import building
    import planning
    import reading

    if "building" in groups:
        yield from building.rows()
    if "planning" in groups:
        yield from planning.rows()
    if "reading" in groups:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "fa4_precompile", "build", "quickstart", "-q", "--cache", folder]
            subprocess.run(command, check=True)
            yield from reading.rows(Path(folder))


def joined(before: dict[str, Any], now: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of a result before with those that were measured now in their places; others have their date."""
    new = {(row["name"], row["unit"]): row for row in now}
    kept = [{"date": before["date"], **row} for row in before["rows"]]
    rows = [new.pop((row["name"], row["unit"]), row) for row in kept]
    return [*rows, *new.values()]


def main() -> None:
    """Measure, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--table", action="store_true", help="print the README's table")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(_GROUPS)}; all, if none is named")
    arguments = parser.parse_args()
    if unknown := sorted({*arguments.groups} - {*_GROUPS}):
        parser.error(f"there is no group {unknown[0]}: {', '.join(_GROUPS)}")
    if arguments.table:
        print(table(newest()))
        return
    RESULTS.mkdir(exist_ok=True)
    before: dict[str, Any] = newest() if any(RESULTS.glob("*.json")) else {"rows": [], "date": "never"}
    known = {(row["name"], row["unit"]): row["value"] for row in before["rows"]}
    print(f"{'':56} {'now':>16} {before['date']:>12}")
    rows = []
    for row in _measured(arguments.groups or _GROUPS):
        rows.append(row.render())
        earlier = known.get((row.name, row.unit))
        print(f"{row.name:56} {row.shown():>16} {'' if earlier is None else format(earlier, '.3g'):>12}", flush=True)
    result = {
        "date": f"{datetime.date.today()}",
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _VERSIONS},
        "rows": joined(before, rows) if arguments.groups else rows,
    }
    path = RESULTS / f"{result['date']}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {path}; `python benchmarks/figures.py --table` makes the README's table of it")


if __name__ == "__main__":
    main()

"""The command line of what jobs have reported: parses and calls."""

from __future__ import annotations

from pathlib import Path

import click

from .options import Folder, ReportPlace, option, option_json, option_trust


@click.command()
@click.argument("paths", metavar="FILE...", nargs=-1, required=True, type=ReportPlace())
@option(
    "--ranks",
    type=click.IntRange(min=1, max=1_000_000),
    metavar="N",
    help="How many ranks the job has. Default: what its launcher has told the processes.",
)
@option("--job", metavar="NAME", help="Which job, of several in FILE. Default: the one that was started last.")
@click.option("--running", "is_running", is_flag=True, help="The job still runs: that a process has not ended is fine.")
@option(
    "--html",
    type=Folder(dir_okay=False),
    metavar="FILE",
    help="Write a page to FILE, which loads nothing from the network.",
)
@option(
    "--cache",
    type=Folder(),
    metavar="DIR",
    help="The job's cache, for the page: what of it was built, used, missed and excluded.",
)
@option_trust
@click.option("--prometheus", "as_prometheus", is_flag=True, help="Print Prometheus's text format.")
@option_json
def report(
    paths: tuple[Path, ...],
    ranks: int | None,
    job: str | None,
    is_running: bool,
    html: Path | None,
    cache: Path | None,
    allow_untrusted: bool,
    as_prometheus: bool,
    as_json: bool,
) -> None:
    """Say whether every rank of a job was served from the cache, by what its processes have reported.

    FILE is what `run --report` named: a file, a folder, or a name with `{host}`, `{rank}` or `{process}`. Ends with 1
    if a rank is not heard from, has missed or compiled a kernel, or has ended without saying so.
    """
    from .report import report

    report(paths, ranks, job, is_running, cache, allow_untrusted, html, as_prometheus, as_json)


COMMANDS = (report,)

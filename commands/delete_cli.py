"""The part of the command line that deletes: parses and calls, as `cli` does.

Imports click only: `--help` is to be quick.
"""

from __future__ import annotations

from pathlib import Path

import click

from .options import AGE_UNITS, SIZE_UNITS, Quantity, offer, option, option_cache, option_json
from .signals import interrupt_on_sigterm


@click.command()
@option_cache
@option(
    "--max-size",
    type=Quantity("size", SIZE_UNITS, "10GB"),
    metavar="SIZE",
    help="Drop the oldest builds until the rest fits: `10GB`, `500MiB`.",
)
@option(
    "--max-age",
    type=Quantity("age", AGE_UNITS, "30d"),
    metavar="AGE",
    help="Drop builds that were last built, or found finished, longer ago: `30d`, `12h`.",
)
@option(
    "--keep-manifests",
    type=click.IntRange(min=1),
    metavar="N",
    help="Of each spec name and target keep the newest N builds only.",
)
@click.option(
    "--keep",
    multiple=True,
    metavar="SPEC",
    shell_complete=offer("specs"),
    help="Never drop builds of SPEC; can be given several times.",
)
@click.option("--dry-run", is_flag=True, help="Say what would go, a line each, and delete nothing.")
@option_json
def gc(
    cache: Path | None,
    max_size: int | None,
    max_age: int | None,
    keep_manifests: int | None,
    keep: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Keep a cache small: drop old builds, and what nothing needs any more.

    Without a limit only what nothing names goes. What was built within the hour stays; jobs and builds can go on.
    """
    from .gc import gc as command

    interrupt_on_sigterm()
    command(cache, max_size, max_age, keep_manifests, keep, dry_run, as_json)


@click.command()
@option_cache
@click.option(
    "--build",
    "specs",
    multiple=True,
    metavar="SPEC",
    shell_complete=offer("specs"),
    help="Then build SPEC; can be given several times.",
)
@click.option("--dry-run", is_flag=True, help="Say what would go, a line each, and delete and build nothing.")
@option_json
def repair(cache: Path | None, specs: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Drop what is damaged, and what misses a part, and say what has to be built again."""
    from .repair import repair as command

    interrupt_on_sigterm()
    command(cache, specs, dry_run, as_json)


COMMANDS = (gc, repair)

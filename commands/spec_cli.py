"""The commands about specs: the shipped ones, those of recordings, and what two reach."""

from __future__ import annotations

from pathlib import Path

import click

from .options import Folder, offer, option, option_jobs, option_json


@click.group()
def spec() -> None:
    """List and show the specs that are shipped; make one of a recording; compare two."""


@spec.command("list")
@option_json
def list_specs(as_json: bool) -> None:
    """List the shipped specs, and where their files are."""
    from .spec import list_

    list_(as_json)


@spec.command("show")
@click.argument("name", metavar="NAME", shell_complete=offer("shipped"))
def show_spec(name: str) -> None:
    """Print a shipped spec as it is: `fa4-precompile spec show quickstart > mine.yaml`."""
    from .spec import show

    show(name)


@spec.command("from-record")
@click.argument("places", metavar="FOLDER...", nargs=-1, required=True, type=Folder())
@click.option(
    "--closure", is_flag=True, help="Leave sizes open: ranges around those that were recorded, not the sizes."
)
@option(
    "--target",
    "target_name",
    metavar="NAME",
    shell_complete=offer("targets"),
    help="Of recordings on several devices, those of this one.",
)
@option("--module", metavar="PACKAGE", help="Of recordings of several packages, those of this one.")
@option_jobs
@option_json
def from_record(
    places: tuple[Path, ...],
    closure: bool,
    target_name: str | None,
    module: str | None,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Print the spec of what jobs looked up: `run --record FOLDER -- COMMAND` wrote it down.

    Several recordings are put together. The spec reaches the recorded kernels and no others; where that can't be, and
    what of the recordings can't be used, is said on standard error.
    """
    from .recorded import from_record

    from_record(places, closure, target_name, module, jobs, as_json)


@spec.command("diff")
@click.argument("one", metavar="A", shell_complete=offer("specs"))
@click.argument("other", metavar="B", shell_complete=offer("specs"))
@option(
    "--target",
    "target_name",
    metavar="NAME",
    shell_complete=offer("targets"),
    help="The device profile that both are planned for. Default: the one that they name.",
)
@option_jobs
@option_json
def diff(one: str, other: str, target_name: str | None, jobs: int | None, as_json: bool) -> None:
    """Say which kernels A reaches and B does not, and the other way round: specs, or folders of recordings.

    Ends with 1 if there are such kernels.
    """
    from .recorded import diff

    diff(one, other, target_name, jobs, as_json)


COMMANDS = (spec,)

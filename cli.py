"""The command line: parses and calls. What a command decides and prints is in `commands`.

Which is imported when it is called, as is what only an error needs, so that `--help` is quick.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from . import __version__
from .commands import audit_cli, build_cli, canary_cli, carry_cli, delete_cli, model_cli, report_cli, spec_cli
from .commands.options import (
    Folder,
    ReportPlace,
    argument_spec,
    offer,
    option,
    option_cache,
    option_canary,
    option_excluded,
    option_from,
    option_json,
    option_known_bad,
    option_module,
    option_target,
    option_toolchain,
    option_trust,
    option_vouchers,
)
from .loader.choices import LEVELS, OnMiss


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="fa4-precompile")
@option(
    "--log-level",
    type=click.Choice(LEVELS),
    help="What is logged on standard error. Default: warning. `run` hands it on to the job.",
)
@click.pass_context
def cli(context: click.Context, log_level: str | None) -> None:
    """Build FlashAttention-4 kernels ahead of time, on a machine with no GPU, into a verified cache.

    SPEC is a YAML file that enumerates calls, or the name of a shipped one, such as `quickstart`.

    Exit codes: 0 done; 1 findings (a kernel failed, is missing or damaged); 2 the command line or a spec is wrong;
    3 this machine can't do it; 4 refused, untrusted; 130 interrupted.
    """
    context.obj = log_level
    if log_level:
        from .loader.voice import set_level

        set_level(log_level)


@cli.command("ls")
@option_cache
@option_trust
@option(
    "--html",
    type=Folder(dir_okay=False),
    metavar="FILE",
    help="Write a page to FILE, which loads nothing from the network: coverage, build times, registers, sizes.",
)
@option_json
def list_(cache: Path | None, allow_untrusted: bool, html: Path | None, as_json: bool) -> None:
    """List the kernels of a cache."""
    from .commands.ls import list_

    list_(cache, allow_untrusted, html, as_json)


@cli.command()
@click.argument("kernel", metavar="KERNEL", shell_complete=offer("kernels"))
@option_cache
@option_trust
@option_json
def show(kernel: str, cache: Path | None, allow_untrusted: bool, as_json: bool) -> None:
    """Show all that is known of one kernel. KERNEL is an id, or its first digits."""
    from .commands.show import show

    show(kernel, cache, allow_untrusted, as_json)


@cli.command()
@option_cache
@option_trust
@option_vouchers
@option_json
def verify(
    cache: Path | None, allow_untrusted: bool, expect: tuple[str, ...], trust_keys: tuple[Path, ...], as_json: bool
) -> None:
    """Check every byte of a cache: records, blobs, toolchains, manifests; of a sealed one, that nothing is missing.

    `--expect` compares the fingerprint of a cache that is not sealed, too.
    """
    from .commands.verify import verify

    verify(cache, allow_untrusted, expect, trust_keys, as_json)


@cli.command()
@argument_spec
@option_cache
@option_target
@option_trust
@option_from
@option_vouchers
@option_excluded
@option_canary
@option_known_bad
@option_toolchain
@option_json
def check(
    spec: str,
    cache: Path | None,
    target_name: str | None,
    allow_untrusted: bool,
    places: tuple[str, ...],
    expect: tuple[str, ...],
    trust_keys: tuple[Path, ...],
    fail_on_excluded: bool,
    canary: str | None,
    known_bad: Path | None,
    toolchain: str | None,
    as_json: bool,
) -> None:
    """Say whether all of SPEC is in the cache, and whether it fits the FlashAttention that is installed here."""
    from .commands.check import check

    check(
        spec,
        cache,
        target_name,
        allow_untrusted,
        places,
        expect,
        trust_keys,
        fail_on_excluded,
        canary,
        known_bad,
        toolchain,
        as_json,
    )


@cli.command()
@click.option("--detect", is_flag=True, help="Print a profile for each GPU of this machine instead.")
@option_json
def targets(detect: bool, as_json: bool) -> None:
    """List the device profiles that a spec or `--target` can name."""
    from .commands import targets as command

    if detect:
        command.detect(as_json)
    else:
        command.targets(as_json)


@cli.command(context_settings={"allow_interspersed_args": False})
@click.option(
    "--cache",
    "caches",
    type=Folder(),
    metavar="DIR",
    multiple=True,
    help="Cache directory; several are searched in order. Default: $FA4_PRECOMPILE_CACHE, else the user's folder.",
)
@click.option("--strict", is_flag=True, help="Fail instead of compiling. The same as `--on-miss error`.")
@option(
    "--on-miss",
    type=click.Choice([choice.value for choice in OnMiss]),
    help="What a process does that needs a kernel which is not there. Default: $FA4_PRECOMPILE_ON_MISS, else warn.",
)
@option_toolchain
@click.option(
    "--no-compiler",
    is_flag=True,
    help="Import the provider with stand-ins for its compiler, installed or not. What the cache does not have fails.",
)
@option(
    "--report",
    type=ReportPlace(),
    metavar="FILE",
    help="Have each process append what it did to FILE, a line of JSON. For `DIR/`, or with `{host}`, `{rank}` or "
    "`{process}` in the name, each writes its own file, and again when something has changed.",
)
@click.option(
    "--require-report/--no-require-report",
    default=None,
    help="Fail if COMMAND ends well and no process of it had the loader. Default: on if strict.",
)
@option(
    "--preload",
    metavar="WHAT",
    is_flag=False,
    flag_value="1",
    help="Load kernels before they are needed: `background` (by a thread), `1` (before the provider's import ends; "
    "also `--preload` alone), `0` (not), or by a thread those of a spec, or of the report of an earlier run. "
    "Default: $FA4_PRECOMPILE_PRELOAD, else background.",
)
@option(
    "--record",
    type=Folder(file_okay=False),
    metavar="FOLDER",
    help="Have each process write down which kernels it looks up, and by which calls, in a file of its own in FOLDER. "
    "`spec from-record` makes a spec of it. Takes no cache. Default: $FA4_PRECOMPILE_RECORD.",
)
@click.option(
    "--fake",
    is_flag=True,
    help="With `--record`: make the provider's calls as for `--target`, with no GPU, by tensors that have no memory.",
)
@option("--target", "target_name", metavar="NAME", shell_complete=offer("targets"), help="The device that `--fake` is.")
@option_module
@option_trust
@option_vouchers
@click.argument("command", metavar="-- COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def run(
    log_level: str | None,
    caches: tuple[Path, ...],
    strict: bool,
    on_miss: str | None,
    toolchain: str | None,
    no_compiler: bool,
    report: Path | None,
    require_report: bool | None,
    preload: str | None,
    record: Path | None,
    fake: bool,
    target_name: str | None,
    modules: tuple[str, ...],
    allow_untrusted: bool,
    expect: tuple[str, ...],
    trust_keys: tuple[Path, ...],
    command: tuple[str, ...],
) -> NoReturn:
    """Run COMMAND so that it and its children take FlashAttention's kernels from the cache.

    COMMAND can be Python, a shell, `torchrun` or `srun`: all that they start inherits the setting, as environment
    variables that PyTorch's plug-in mechanism reads. It replaces this process. If a report is required, this one waits
    for it and ends as it does.
    """
    from .commands.run import run

    run(
        caches,
        strict,
        on_miss,
        toolchain,
        no_compiler,
        report,
        require_report,
        modules,
        allow_untrusted,
        expect,
        trust_keys,
        log_level,
        preload,
        record,
        fake,
        target_name,
        command,
    )


@cli.command()
@option_cache
@click.option(
    "--role",
    type=click.Choice(["build", "job"]),
    help="Look at what a build, or what a job needs. Default: both; what only a build needs may be missing where the "
    "extra `build` is not installed.",
)
@option_module
@option_json
def doctor(cache: Path | None, role: str | None, modules: tuple[str, ...], as_json: bool) -> None:
    """Say what this machine has for building and loading kernels, what is wrong, and how to mend it."""
    from .commands.doctor import doctor

    doctor(cache, role, modules, as_json)


spec_cli.spec.add_command(model_cli.from_model)
for command_ in (
    *build_cli.COMMANDS,
    *audit_cli.COMMANDS,
    *canary_cli.COMMANDS,
    *carry_cli.COMMANDS,
    *delete_cli.COMMANDS,
    *report_cli.COMMANDS,
    *spec_cli.COMMANDS,
):
    cli.add_command(command_)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line; errors become a sentence, a hint and an exit code."""
    from .commands.streams import steady_streams

    steady_streams()
    words = sys.argv[1:] if arguments is None else arguments
    try:
        cli.main(args=words, prog_name="fa4-precompile", standalone_mode=False)
        sys.exit(_flushed(0))
    except SystemExit as error:
        sys.exit(_flushed(error.code))
    except BaseException as error:
        sys.exit(_flushed(_fail(error, _asks_for_json(words))))


def _fail(error: BaseException, as_json: bool) -> int:
    """Say what went wrong, and return what to end with."""
    import json
    import traceback

    from .errors import Fa4PrecompileError, Interrupted, UsageError

    if isinstance(error, (click.exceptions.Abort, KeyboardInterrupt)):
        error = Interrupted()
    if isinstance(error, click.ClickException):
        error.show()
        message, hint, code = error.format_message(), "", UsageError.exit_code
    elif isinstance(error, Fa4PrecompileError):
        message, hint, code = str(error), error.hint, error.exit_code
        click.echo(f"error: {message}", err=True)
        if hint:
            click.echo(f"hint: {hint}", err=True)
    else:  # no word of ours on it: never mistaken for findings
        traceback.print_exception(error)
        message, hint, code = f"{type(error).__name__}: {error}", "this is a fault of fa4-precompile", 3
    if as_json:
        click.echo(json.dumps({"error": {"message": message, "hint": hint, "exit_code": code}}))
    return code


def _flushed(code: Any) -> Any:
    """Return what to end with once all that was printed is on its way: that it is not is an error, too."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except Exception as error:  # a `MachineError` of `commands.streams`
        return _fail(error, as_json=False)
    return code


def _asks_for_json(words: list[str]) -> bool:
    """Return whether the command is asked for JSON, also if the rest of the command line can't be meant."""
    ours = words[: words.index("--")] if "--" in words else words
    command = next((word for word in ours if word in cli.commands), "")
    return "--json" in ours and command != "run"  # whose words can be the job's

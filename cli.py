"""The command line: parse, call, print. Results go to standard output, all else to standard error.

Heavy imports are inside the commands, so that `--help` and a build with nothing to do are quick.
"""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from . import __version__
from .cache.config import Config, OnMiss
from .cache.store import Finding, Root
from .cache.trust import Trust
from .errors import Fa4PrecompileError, Interrupted, RecordError, UntrustedError, UsageError
from .precompile.show import megabytes, plan_lines, plan_summary, record_line, record_lines, report_lines
from .precompile.words import count

if TYPE_CHECKING:
    from .cache.record import Record
    from .cache.target import Target
    from .precompile.build import BuildReport, Progress
    from .precompile.spec import Spec

Command = TypeVar("Command", bound=Callable[..., Any])

_FINDINGS = 1
_MATRIX_TARGET = "b200"


def _option_cache(command: Command) -> Command:
    return click.option(
        "--cache",
        "cache",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Cache directory. Default: the first of $FA4_PRECOMPILE_CACHE, else the user's cache folder.",
    )(command)


def _option_trust(command: Command) -> Command:
    return click.option(
        "--allow-untrusted", is_flag=True, help="Read a cache that others can write. Its kernels run as you."
    )(command)


def _option_json(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")(command)


def _option_target(command: Command) -> Command:
    return click.option(
        "--target",
        "target_name",
        metavar="NAME",
        help="Device profile (see `targets`). Default: all that the spec names.",
    )(command)


def _option_jobs(command: Command) -> Command:
    return click.option(
        "-j",
        "--jobs",
        type=click.IntRange(min=1),
        metavar="N",
        help="Processes at a time. Default: what cores and free memory allow (1.5 GB each).",
    )(command)


_argument_spec = click.argument("spec", metavar="SPEC")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="fa4-precompile")
def cli() -> None:
    """Build FlashAttention-4 kernels ahead of time, on a machine with no GPU, into a verified cache.

    SPEC is a YAML file that enumerates calls, or the name of a shipped one, such as `quickstart`.

    Exit codes: 0 done; 1 findings (a kernel failed, is missing or damaged); 2 the command line or a spec is wrong;
    3 this machine can't do it; 4 refused, untrusted; 130 interrupted.
    """


@cli.command()
@_argument_spec
@_option_cache
@_option_target
@_option_jobs
@click.option(
    "--time-limit",
    type=click.FloatRange(min=1),
    default=900,
    show_default=True,
    metavar="SECONDS",
    help="Give up on a kernel after this long.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@_option_json
def build(
    spec: str,
    cache: Path | None,
    target_name: str | None,
    jobs: int | None,
    time_limit: float,
    quiet: bool,
    as_json: bool,
) -> None:
    """Build every kernel of SPEC that the cache does not have.

    What fails is reported, and the rest is built (exit code 1). Interrupting keeps what is built; the next build goes
    on from there.
    """
    from .cache.toolchain import installed_toolchain
    from .precompile import build as builder

    _interrupt_on_sigterm()
    parsed, targets = _spec_and_targets(spec, target_name)
    root = _root(cache)
    toolchain = installed_toolchain(parsed.provider)
    for target in targets if len(targets) > 1 else ():
        builder.require_buildable(parsed, target, toolchain, root)  # before hours are spent on the first
    reports: list[BuildReport] = []
    for target in targets:
        progress = _progress(quiet)
        report = builder.build(parsed, target, toolchain, root, progress, jobs or _default_jobs(), time_limit)
        reports.append(report)
        for line in report_lines(report, root) if not quiet or report.failed else ():
            _note(line)
    if as_json:
        _print_json([report.render() for report in reports])
    if any(report.failed for report in reports):
        sys.exit(_FINDINGS)


@cli.command()
@click.argument("spec", metavar="[SPEC]", required=False)
@_option_target
@_option_jobs
@click.option("--explain", is_flag=True, help="List every excluded call with the provider's reason.")
@click.option(
    "--matrix",
    "as_matrix",
    is_flag=True,
    help="Instead of a SPEC: what is supported, by pass, head_dim, block sparsity, cluster_size and backend.",
)
@_option_json
def plan(
    spec: str | None, target_name: str | None, jobs: int | None, explain: bool, as_matrix: bool, as_json: bool
) -> None:
    """Say which kernels SPEC comes to with the installed FlashAttention. Compiles nothing."""
    from .cache.toolchain import installed_toolchain
    from .precompile.compilers import Compilers
    from .precompile.plan import make_plan

    _interrupt_on_sigterm()
    if as_matrix:
        if spec is not None:
            raise UsageError("`--matrix` is about all that is supported, not about a SPEC", "leave one of them out")
        _matrix(target_name or _MATRIX_TARGET, jobs or _default_jobs(), as_json)
        return
    if spec is None:
        raise UsageError("there is no SPEC", "name a YAML file or a shipped spec, or say `--matrix`")
    parsed, targets = _spec_and_targets(spec, target_name)
    toolchain = installed_toolchain(parsed.provider)
    plans = []
    for target in targets:
        start = time.monotonic()
        _note(f"asking {parsed.provider.name} about {count(len(parsed.variants), 'call')}")
        with Compilers(target, toolchain, jobs or _default_jobs(), None, parsed.provider) as compilers:
            planned = make_plan(parsed, compilers)
        plans.append(planned)
        for line in plan_lines(planned, explain) if not as_json else ():
            click.echo(line)
        for line in plan_summary(planned, explain, time.monotonic() - start) if not as_json else ():
            _note(line)
    if as_json:
        _print_json([planned.render() for planned in plans])
    if any(planned.broken for planned in plans):
        sys.exit(_FINDINGS)


@cli.command("ls")
@_option_cache
@_option_trust
@_option_json
def list_(cache: Path | None, allow_untrusted: bool, as_json: bool) -> None:
    """List the kernels of a cache."""
    records, findings = _records(_existing_root(cache, allow_untrusted))
    if as_json:
        click.echo(json.dumps([record.render() for record in records]))
    else:
        for record in records:
            click.echo(record_line(record))
    for finding in findings:
        _note(f"{finding.path}: {finding.problem}")
    _note(f"{count(len(records), 'kernel')}, {megabytes(sum(record.blob_bytes for record in records))}")
    _end_with(findings)


@cli.command()
@click.argument("kernel", metavar="KERNEL")
@_option_cache
@_option_trust
@_option_json
def show(kernel: str, cache: Path | None, allow_untrusted: bool, as_json: bool) -> None:
    """Show all that is known of one kernel. KERNEL is an id, or its first digits."""
    root = _existing_root(cache, allow_untrusted)
    records, findings = _records(root)
    found = [record for record in records if kernel and record.id.startswith(kernel.lower())]
    damaged = [finding for finding in findings if kernel and f"/{kernel.lower()}" in finding.path]
    if damaged and not found:
        if damaged[0].untrusted:
            raise UntrustedError(damaged[0].untrusted, damaged[0].problem)
        raise RecordError(damaged[0].path, damaged[0].problem)
    if not found:
        raise UsageError(
            f"no kernel of `{root.path}` has an id that begins with {kernel}", "`fa4-precompile ls` lists them"
        )
    if len(found) > 1:
        raise UsageError(f"{len(found)} kernels have an id that begins with {kernel}", "give more digits")
    if as_json:
        click.echo(json.dumps(found[0].render()))
    else:
        for line in record_lines(found[0], root):
            click.echo(line)


@cli.command()
@_option_cache
@_option_trust
@_option_json
def verify(cache: Path | None, allow_untrusted: bool, as_json: bool) -> None:
    """Check every byte of a cache: records, blobs, toolchains, manifests."""
    from .cache.verify import verify_root

    root = _existing_root(cache, allow_untrusted)
    result = verify_root(root)
    if as_json:
        click.echo(json.dumps(result.render()))
    else:
        for finding in result.findings:
            click.echo(f"{finding.path}: {finding.problem}")
        good = f"{count(result.records, 'kernel')}, {megabytes(result.bytes)}"
        state = "is not whole; as it should be" if result.findings else "is whole"
        _note(f"`{root.path}` {state}: {good}")
    _end_with(result.findings)


@cli.command()
@_argument_spec
@_option_cache
@_option_target
@_option_trust
@_option_json
def check(spec: str, cache: Path | None, target_name: str | None, allow_untrusted: bool, as_json: bool) -> None:
    """Say whether all of SPEC is in the cache, and whether it fits the FlashAttention that is installed here."""
    from .precompile.check import check_spec

    parsed, targets = _spec_and_targets(spec, target_name)
    root = _existing_root(cache, allow_untrusted)
    results = [check_spec(root, parsed, target) for target in targets]
    if as_json:
        _print_json([result.render() for result in results])
    for result in () if as_json else results:
        for finding in result.findings:
            click.echo(f"{result.target.name}: {finding}")
        if not result.findings:
            click.echo(f"{result.target.name}: {parsed.name} is here whole and fits: {count(result.kernels, 'kernel')}")
    _end_with([Finding("", finding, result.untrusted) for result in results for finding in result.findings])


@cli.command()
@click.option("--detect", is_flag=True, help="Print a profile for each GPU of this machine instead.")
@_option_json
def targets(detect: bool, as_json: bool) -> None:
    """List the device profiles that a spec or `--target` can name."""
    from .cache.target import host_machine
    from .precompile.spec import target_book

    if detect:
        _detect(as_json)
        return
    profiles = target_book().profiles.values()
    if as_json:
        click.echo(json.dumps([vars(profile) for profile in profiles]))
        return
    for profile in profiles:
        sms = f"{profile.sms} SMs" if profile.sms else "give `sms:`"
        click.echo(
            f"{profile.name:14} {profile.arch:8} {sms:12} CUDA {profile.cuda}  {profile.machine or host_machine()}"
        )


@cli.command(context_settings={"allow_interspersed_args": False})
@click.option(
    "--cache",
    "caches",
    type=click.Path(path_type=Path),
    metavar="DIR",
    multiple=True,
    help="Cache directory; several are searched in order. Default: $FA4_PRECOMPILE_CACHE, else the user's folder.",
)
@click.option("--strict", is_flag=True, help="Fail instead of compiling. The same as `--on-miss error`.")
@click.option(
    "--on-miss",
    type=click.Choice([choice.value for choice in OnMiss]),
    help="What a process does that needs a kernel which is not there. Default: $FA4_PRECOMPILE_ON_MISS, else warn.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Have each process append what it did to FILE, a line of JSON.",
)
@_option_trust
@click.argument("command", metavar="-- COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
def run(
    caches: tuple[Path, ...],
    strict: bool,
    on_miss: str | None,
    report: Path | None,
    allow_untrusted: bool,
    command: tuple[str, ...],
) -> NoReturn:
    """Run COMMAND so that it and its children take FlashAttention's kernels from the cache.

    COMMAND replaces this process. It can be a shell, `torchrun` or `srun`: all that they start inherits the setting, as
    environment variables that PyTorch's plug-in mechanism reads.
    """
    from .precompile.run import replace_process

    config = Config.from_env(roots=caches)
    if strict and on_miss not in (None, OnMiss.ERROR.value):
        raise UsageError(f"`--strict` and `--on-miss {on_miss}` contradict each other", "leave one out")
    chosen = OnMiss.ERROR if strict else OnMiss(on_miss) if on_miss else config.on_miss
    config = dataclasses.replace(
        config,
        trust=Trust.ANY if allow_untrusted else config.trust,
        on_miss=chosen,
        report_file=report.absolute() if report else config.report_file,
    )
    replace_process(config, command)


@cli.command()
@_option_cache
@_option_json
def doctor(cache: Path | None, as_json: bool) -> None:
    """Say what this machine has for building and loading kernels, what is wrong, and how to mend it."""
    from .precompile.doctor import examine

    checks = examine(_root(cache))
    if as_json:
        click.echo(json.dumps([vars(check) for check in checks]))
    else:
        for item in checks:
            click.echo(f"{'ok  ' if item.ok else 'FAIL'} {item.what}: {item.found}")
            if item.mend:
                click.echo(f"     {item.mend}")
    if not all(item.ok for item in checks):
        sys.exit(_FINDINGS)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line; errors become a sentence, a hint and an exit code."""
    try:
        cli.main(args=arguments, prog_name="fa4-precompile", standalone_mode=False)
    except Fa4PrecompileError as error:
        _fail(error)
    except click.exceptions.Abort:
        _fail(Interrupted())
    except KeyboardInterrupt:
        _fail(Interrupted())
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except SystemExit as error:
        # click ends with 1 when whoever reads our output has seen enough, which is no fault.
        sys.exit(0 if type(sys.stdout).__name__.endswith("PacifyFlushWrapper") else error.code)
    sys.exit(0)


def _fail(error: Fa4PrecompileError) -> NoReturn:
    click.echo(f"error: {error}", err=True)
    if error.hint:
        click.echo(f"hint: {error.hint}", err=True)
    sys.exit(error.exit_code)


def _interrupt_on_sigterm() -> None:
    def interrupt(_number: int, _frame: object) -> NoReturn:
        raise KeyboardInterrupt  # no `Exception`, so that nothing on the way swallows it

    signal.signal(signal.SIGTERM, interrupt)


def _root(cache: Path | None, allow_untrusted: bool = False) -> Root:
    path = cache or Config.from_env().roots[0]
    return Root(path.absolute(), Trust.ANY if allow_untrusted else Trust.OWN)


def _existing_root(cache: Path | None, allow_untrusted: bool) -> Root:
    root = _root(cache, allow_untrusted)
    root.require_layout()
    return root


def _spec_and_targets(argument: str, target_name: str | None) -> tuple[Spec, list[Target]]:
    from .precompile.spec import find_spec, read_spec, target_book

    book = target_book()
    spec = read_spec(find_spec(argument), book)
    if target_name is None:
        if not spec.targets:
            raise UsageError(f"`{spec.source}` names no targets", "name one with `--target NAME`, see `targets`")
        return spec, list(spec.targets)
    named = [target for target in spec.targets if target.name == target_name]
    return spec, named or [book.get(target_name)]


def _default_jobs() -> int:
    from .precompile.pool import default_jobs

    return default_jobs()


def _progress(quiet: bool) -> Progress:
    from .precompile.progress import BarProgress, LogProgress, NoProgress

    if quiet:
        return NoProgress()
    return BarProgress() if sys.stderr.isatty() else LogProgress()


def _records(root: Root) -> tuple[list[Record], list[Finding]]:
    records, findings = [], []
    for item in root.records():
        if isinstance(item, Finding):
            findings.append(item)
        else:
            records.append(item)
    return records, list(dict.fromkeys(findings))


def _end_with(findings: Sequence[Finding]) -> None:
    untrusted = [finding for finding in findings if finding.untrusted]
    if untrusted:
        _note(f"hint: {UntrustedError(untrusted[0].untrusted, '').hint}")
        sys.exit(UntrustedError.exit_code)
    if findings:
        _note("hint: build the specs again, which makes what is missing and replaces what is damaged")
        sys.exit(_FINDINGS)


def _matrix(target_name: str, jobs: int, as_json: bool) -> None:
    from .cache.toolchain import installed_toolchain
    from .precompile.compilers import Compilers
    from .precompile.matrix import lines, matrix
    from .precompile.spec import target_book

    target = target_book().get(target_name)
    toolchain = installed_toolchain()
    _note(f"asking {toolchain.provider} {toolchain.provider_version} about the whole matrix for {target.name}")
    with Compilers(target, toolchain, jobs, None) as compilers:
        points = matrix(compilers)
    if as_json:
        click.echo(json.dumps([point.render() for point in points]))
        return
    for line in lines(points, target):
        click.echo(line)


def _detect(as_json: bool) -> None:
    from .cache.device import detect_driver
    from .errors import MachineError

    driver = detect_driver()
    if driver is None or not driver.devices:
        raise MachineError("no NVIDIA GPU is visible here", "run it on the machine that the job will run on")
    profiles = [
        {"name": f"gpu{device.index}", "arch": device.arch, "sms": device.sms, "device": device.name}
        for device in driver.devices
    ]
    if as_json:
        click.echo(json.dumps(profiles))
        return
    for profile in profiles:
        click.echo(
            f"- {{name: {profile['name']}, arch: {profile['arch']}, sms: {profile['sms']}}}  # {profile['device']}"
        )
    _note("lines for the `targets` of a spec; add `cuda: 12` if the job's torch is built for CUDA 12")


def _print_json(documents: list[dict[str, object]]) -> None:
    """Print one JSON document: the object of the one target, or a list with one for each."""
    click.echo(json.dumps(documents[0] if len(documents) == 1 else documents))


def _note(message: str) -> None:
    click.echo(message, err=True)

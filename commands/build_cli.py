"""The command line of what plans and builds: parses and calls."""

from __future__ import annotations

from pathlib import Path

import click

from .options import (
    TIME_LIMIT_S,
    argument_spec,
    offer,
    option,
    option_cache,
    option_excluded,
    option_from,
    option_jobs,
    option_json,
    option_known_bad,
    option_shard,
    option_target,
    option_vouchers,
)
from .signals import interrupt_on_sigterm


@click.command()
@argument_spec
@option_cache
@option_target
@option_jobs
@option(
    "--time-limit",
    type=click.FloatRange(min=1),
    default=[TIME_LIMIT_S],
    show_default=True,
    metavar="SECONDS",
    help="Give up on a kernel after this long.",
)
@option_from
@option_vouchers
@option(
    "--executor",
    metavar="ENGINE",
    help="Build on the workers of an engine: `dask://HOST:PORT`, or `module:factory` for what gives a "
    "`concurrent.futures.Executor` or a Dask `Client`. `-j` is how many kernels it gets at a time; default: all.",
)
@click.option(
    "--workers-publish",
    is_flag=True,
    help="The engine's workers publish into the cache, which is on storage that all share. Else kernels come back over "
    "the engine.",
)
@option_shard
@option_known_bad
@click.option(
    "--allow-known-bad", is_flag=True, help="Build kernels that are known to hang or to be wrong. `show` says so then."
)
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@option_excluded
@option_json
def build(
    spec: str,
    cache: Path | None,
    target_name: str | None,
    jobs: int | None,
    time_limit: float,
    places: tuple[str, ...],
    expect: tuple[str, ...],
    trust_keys: tuple[Path, ...],
    executor: str | None,
    workers_publish: bool,
    shard: tuple[int, int] | None,
    known_bad: Path | None,
    allow_known_bad: bool,
    quiet: bool,
    fail_on_excluded: bool,
    as_json: bool,
) -> None:
    """Build every kernel of SPEC that the cache does not have.

    What fails is reported, and the rest is built (exit code 1). Interrupting keeps what is built; the next build goes
    on from there.
    """
    from .build import build

    interrupt_on_sigterm()
    build(
        spec,
        cache,
        target_name,
        jobs,
        time_limit,
        places,
        expect,
        trust_keys,
        executor,
        workers_publish,
        shard,
        known_bad,
        allow_known_bad,
        quiet,
        fail_on_excluded,
        as_json,
    )


@click.command()
@click.argument("spec", metavar="[SPEC]", required=False, shell_complete=offer("specs"))
@option_target
@option_jobs
@click.option("--explain", is_flag=True, help="List every excluded call with the provider's reason.")
@click.option(
    "--matrix",
    "as_matrix",
    is_flag=True,
    help="Instead of a SPEC: what is supported, by pass, head_dim, block sparsity, cluster_size and backend.",
)
@click.option(
    "--estimate",
    "with_estimate",
    is_flag=True,
    help="Instead of the kernels: how long a build takes with 1, 2, 4, ... cores, how much memory and disk.",
)
@option_cache
@option_known_bad
@option("--module", metavar="PACKAGE", help="With `--matrix`: another package that carries the provider's code.")
@option_excluded
@option_json
def plan(
    spec: str | None,
    target_name: str | None,
    jobs: int | None,
    explain: bool,
    as_matrix: bool,
    with_estimate: bool,
    cache: Path | None,
    known_bad: Path | None,
    module: str | None,
    fail_on_excluded: bool,
    as_json: bool,
) -> None:
    """Say which kernels SPEC comes to with the installed FlashAttention. Compiles nothing.

    `--estimate` counts what `--cache` has as done, and reckons with what the kernels took that were built there before.
    """
    from .plan import plan

    interrupt_on_sigterm()
    plan(
        spec, target_name, jobs, explain, as_matrix, module, fail_on_excluded, as_json, with_estimate, cache, known_bad
    )


COMMANDS = (build, plan)

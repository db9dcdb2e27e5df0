"""The command line of what audits: parses and calls."""

from __future__ import annotations

from pathlib import Path

import click

from .options import (
    TIME_LIMIT_S,
    argument_spec,
    option,
    option_cache,
    option_jobs,
    option_json,
    option_target,
)
from .signals import interrupt_on_sigterm

_PARTS = ("stock", "sound", "steady")


@click.command()
@argument_spec
@option_cache
@option_target
@option(
    "--only",
    metavar="PART,...",
    help=f"Parts of the audit: {', '.join(_PARTS)}. Default: all three.",
)
@option(
    "--sample",
    type=click.IntRange(min=1),
    metavar="N",
    help="Look at N kernels, or a few more, by chance. Default: all.",
)
@option("--seed", type=int, default=[0], show_default=True, metavar="S", help="What chance goes by.")
@option(
    "--consider",
    type=click.IntRange(min=1),
    default=[10],
    show_default=True,
    metavar="N",
    help="`sound`: ask about N other calls of each kernel.",
)
@option(
    "--per-key",
    type=click.IntRange(min=2),
    default=[2],
    show_default=True,
    metavar="N",
    help="`sound`: compile each kernel from N of these calls, the most different ones.",
)
@option(
    "--perturb",
    type=click.IntRange(min=0),
    default=[100],
    show_default=True,
    metavar="N",
    help="`sound`: change one argument of a call N times, and compile where the key stays the same.",
)
@option_jobs
@option(
    "--time-limit",
    type=click.FloatRange(min=1),
    default=[TIME_LIMIT_S],
    show_default=True,
    metavar="SECONDS",
    help="Give up on a kernel after this long.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but findings and errors.")
@option_json
def audit(
    spec: str,
    cache: Path | None,
    target_name: str | None,
    only: str | None,
    sample: int | None,
    seed: int,
    consider: int,
    per_key: int,
    perturb: int,
    jobs: int | None,
    time_limit: float,
    quiet: bool,
    as_json: bool,
) -> None:
    """Prove that the kernels of SPEC are the right ones: compile them again, and compare.

    `stock`: they are what FlashAttention compiles by itself. `sound`: whatever call reaches a key, its kernel is the
    same. `steady`: another build makes the same. What the cache has is compared as it is there; nothing is published.
    """
    from .audit import audit

    interrupt_on_sigterm()
    audit(
        spec,
        cache,
        target_name,
        only,
        sample,
        seed,
        consider,
        per_key,
        perturb,
        jobs,
        time_limit,
        quiet,
        as_json,
    )


COMMANDS = (audit,)

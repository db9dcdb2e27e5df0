"""The command line of what runs kernels: parses and calls."""

from __future__ import annotations

from pathlib import Path

import click
from click.core import ParameterSource

from .options import Folder, offer, option, option_cache, option_json, option_trust, option_vouchers
from .signals import interrupt_on_sigterm

_TIME_LIMIT_S = 120


@click.command()
@click.argument("spec", metavar="[SPEC]", required=False, shell_complete=offer("specs"))
@option_cache
@option("--sample", type=click.IntRange(min=1), metavar="N", help="Make N calls of all, chosen by chance.")
@option(
    "--seed",
    type=click.IntRange(min=0, max=2**32 - 1),
    default=[0],
    show_default=True,
    metavar="S",
    help="Of the random values, and of the sample: the same for the same number.",
)
@option(
    "--time-limit",
    type=click.FloatRange(min=1),
    default=[_TIME_LIMIT_S],
    show_default=True,
    metavar="SECONDS",
    help="Give up on a call after this long.",
)
@option(
    "--out",
    type=Folder(dir_okay=False),
    metavar="FILE",
    help="Write all that was found out to FILE, as JSON: certificates, device, errors, tracebacks.",
)
@click.option(
    "--take",
    type=Folder(dir_okay=False),
    multiple=True,
    metavar="FILE",
    help="Run nothing: keep the certificates of a FILE that `--out` wrote elsewhere. Can be given several times.",
)
@option_trust
@option_vouchers
@option_json
def canary(
    spec: str | None,
    cache: Path | None,
    sample: int | None,
    seed: int,
    time_limit: float,
    out: Path | None,
    take: tuple[Path, ...],
    allow_untrusted: bool,
    expect: tuple[str, ...],
    trust_keys: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Run the kernels of the cache on the GPU that is here, and compare what they compute with a float32 reference.

    All that builds (of SPEC, if it is named) have made for this GPU. What raises, hangs or differs is a finding (exit
    code 1), and the others go on. Each kernel gets a certificate in the cache, which `ls`, `show` and `check` read.
    """
    interrupt_on_sigterm()
    if take:
        for name in ("spec", "sample", "seed", "time_limit", "out"):
            if click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE:
                raise click.UsageError(f"`--take` runs nothing, so `{name.replace('_', '-')}` means nothing with it.")
        from .canary_take import take as take_reports

        take_reports(take, cache, allow_untrusted, expect, trust_keys, as_json)
        return
    from .canary import canary

    canary(spec, cache, sample, seed, time_limit, out, allow_untrusted, expect, trust_keys, as_json)


COMMANDS = (canary,)

"""The command `spec from-model`, and what it takes of a job."""

from __future__ import annotations

from pathlib import Path

import click

from .options import Folder, offer, option, option_jobs, option_json

_PURPOSES = "training", "evaluation", "prefill", "decode"


@click.command("from-model")
@click.argument("places", metavar="CONFIG...", nargs=-1, required=True, type=Folder())
@click.option(
    "--for",
    "purposes",
    type=click.Choice(_PURPOSES),
    multiple=True,
    help="What the job does; can be given several times. `training`: forward and backward. `evaluation`: a forward "
    "with no gradient. `prefill`: one that fills a cache of K and V. `decode`: one row of Q for each sequence. "
    "Default: training.",
)
@option("--dtype", type=click.Choice(("bf16", "fp16")), help="Type of Q, K and V. Default: what CONFIG says.")
@option(
    "--packing",
    type=click.Choice(("no", "yes", "both")),
    help="Whether sequences are packed (`varlen`), padded to one length, or both. Default: no; yes "
    "where the cache is in pages.",
)
@option("--batch", metavar="SIZES", help="Sequences: `8`, `1,8`, `1..64`. Default: 1..256.")
@option(
    "--seqlen",
    metavar="SIZES",
    help="Rows of a sequence; of prefill and decode all rows of K. Default: from 1 to what CONFIG says, at most "
    "131072.",
)
@option(
    "--tensor-parallel",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="GPUs that heads are divided among. Default: 1.",
)
@option(
    "--page-size", type=click.IntRange(1, 65536), metavar="ROWS", help="The cache of K and V is in pages of so many."
)
@option(
    "--num-splits",
    metavar="N,...",
    help="Splits of K and V in prefill and decode; 0 leaves it to the provider. Default: 1.",
)
@click.option("--deterministic", is_flag=True, help="Backward adds in a fixed order.")
@option(
    "--framework",
    type=click.Choice(("transformers", "vllm")),
    help="Make the calls as this one does, where it makes others than the model needs.",
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="NAME",
    shell_complete=offer("targets"),
    help="Device profile for the spec's `targets`; can be given several times. Default: b200.",
)
@option("--module", metavar="PACKAGE", help="The package that the job calls, where that is not the provider's own.")
@option("--as", "read_as", metavar="MODEL_TYPE", help="Read CONFIG as one of this type, whatever type it names.")
@option_jobs
@option_json
def from_model(
    places: tuple[Path, ...],
    purposes: tuple[str, ...],
    dtype: str | None,
    packing: str | None,
    batch: str | None,
    seqlen: str | None,
    tensor_parallel: int | None,
    page_size: int | None,
    num_splits: str | None,
    deterministic: bool,
    framework: str | None,
    targets: tuple[str, ...],
    module: str | None,
    read_as: str | None,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Print the spec of what models call. CONFIG is a model's `config.json`, or the folder that has it.

    Several models are put together. The provider is asked whether it takes each call; nothing is compiled. What of a
    file is not read and may matter is said on standard error; what no call can say, and what is refused, is left out,
    is said there, too, and ends with 1.
    """
    from .modeled import Profile, from_model

    profile = Profile(
        purposes=purposes,
        dtype=dtype,
        packing=packing,
        batch=batch,
        seqlen=seqlen,
        tensor_parallel=tensor_parallel,
        page_size=page_size,
        num_splits=num_splits,
        deterministic=deterministic,
        framework=framework,
    )
    from_model(places, profile, targets, module, read_as, jobs, as_json)

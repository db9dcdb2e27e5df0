"""The words in which a provider is asked which calls a model's attention layers come to. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Purpose = Literal["training", "evaluation", "prefill", "decode"]
Packing = Literal["no", "yes", "both"]
Framework = Literal["transformers", "vllm"]
Size = int | str
"""A number, or a range as a spec has it: `1..4096`."""

Axes = Mapping[str, object]
"""A call by its axes in a spec, one value each, as JSON; what is not named is at its default."""


@dataclass(frozen=True)
class Latent:
    """Compressed K and V that all heads share, as in MLA.

    Attributes:
        rank: columns of what is kept of K and V.
        positions: columns of K with positions, which are beside it.
    """

    rank: int
    positions: int


@dataclass(frozen=True)
class Attention:
    """What layers of a model attend by, whole: before any parallelism divides it.

    Attributes:
        heads, kv_heads: of Q, and of K and V.
        head_dim, head_dim_v: columns of Q and K, and of V.
        causal: whether each row of Q sees the rows of K up to its own.
        window: rows that are seen to the left and to the right; None is unbounded.
        softcap: what scores are capped at; None if they are not.
        sink: whether there is a learned number for each head that takes part in the softmax.
        latent: what K and V are made of, if that is what a cache keeps.
        is_encoder: whether the layers have no cache of K and V: they see all of their input in one call.
        is_packed: whether their inputs are always packed: images of several sizes, say.
        longest: most rows of an input, as far as the model says so.
    """

    heads: int
    kv_heads: int
    head_dim: int
    head_dim_v: int
    causal: bool = True
    window: tuple[int | None, int | None] | None = None
    softcap: float | None = None
    sink: bool = False
    latent: Latent | None = None
    is_encoder: bool = False
    is_packed: bool = False
    longest: int | None = None


@dataclass(frozen=True)
class Use:
    """How a job uses a model.

    Attributes:
        purpose: a training step; a forward with no gradient and no cache of K and V; one that fills such a cache; one
            that adds a row to it.
        dtype: type of Q, K and V, as the provider's axis has it.
        packing: whether sequences are packed, or padded to one length; `both` is both.
        tensor_parallel: GPUs that the heads are divided among.
        batch, seqlen: sizes; nothing leaves them open. Of a decode, `seqlen` is the length of K.
        page: rows of a page of the cache; None for one that is not in pages, or as large as the framework has them.
        num_splits: as the provider's axis has it; nothing takes what the framework says.
        deterministic: whether backward adds in a fixed order.
        framework: who makes the calls; None makes them as the model has them.
    """

    purpose: Purpose
    dtype: str
    packing: Packing = "no"
    tensor_parallel: int = 1
    batch: tuple[Size, ...] = ()
    seqlen: tuple[Size, ...] = ()
    page: int | None = None
    num_splits: tuple[int, ...] = ()
    deterministic: bool = False
    framework: Framework | None = None

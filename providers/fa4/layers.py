"""From a model's attention layers to the calls of FlashAttention-4 that a job makes for them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

from ...errors import UsageError
from ..layers import Attention, Axes, Size, Use
from .variant import CLOSURE

_LONGEST = 131072  # of a model that does not say
_MOST_SEQUENCES = 256
_PAGE, _PAGE_OF_256 = 16, 128  # vLLM's blocks, where nothing is said
_SPLITS = 0, 32  # vLLM: FA4 chooses; in a CUDA graph


def calls_of(attention: Attention, use: Use) -> list[Axes]:
    """Return the calls of layers in a job, by the axes of a spec. None for what makes no call of FA4 there.

    Raises `UsageError` for heads that can't be divided.
    """
    if attention.is_encoder and use.purpose == "decode":
        return []
    if attention.is_encoder and use.purpose == "prefill":
        use = replace(use, purpose="evaluation")
    is_absorbed = attention.latent is not None and use.purpose == "decode" and use.framework != "transformers"
    if is_absorbed and use.framework == "vllm":
        return []  # it has other libraries for that
    heads, kv_heads, dims = _divided(attention, use, is_absorbed)
    call: dict[str, object] = {
        "pass": "bwd" if use.purpose == "training" else "fwd",
        "dtype": use.dtype,
        "head_dim": dims[0] if dims[0] == dims[1] else dims,
        "causal": attention.causal,
        "qheads_per_kvhead": heads // kv_heads,
        "softcap": attention.softcap,
        "sink": use.dtype if attention.sink else None,
        "deterministic": use.deterministic and use.purpose == "training",
        "qv": "with-q" if is_absorbed else False,
    }
    # Sinks are a parameter, which wants a gradient in `transformers` unless it is told otherwise, also under `no_grad`.
    wants_lse = (
        (False, True) if attention.sink and use.framework == "transformers" and call["pass"] == "fwd" else (None,)
    )
    return [
        {**call, **({} if lse is None else {"return_lse": lse}), **way, **window, **shape}
        for lse in wants_lse
        for way, (window, low, high) in itertools.product(_ways(attention, use), _windows(attention, use))
        for shape in _shapes(attention, use, heads, low, high)
    ]


def instead(call: Axes) -> list[Axes]:
    """Return a training step with the backward for all head_dims: the dedicated ones refuse softcap, sinks and more."""
    return [{**call, "backend": "generic"}] if call["pass"] == "bwd" and "backend" not in call else []


def _divided(attention: Attention, use: Use, is_absorbed: bool) -> tuple[int, int, list[int]]:
    """Return the heads of Q and of K on one GPU, and the columns of Q and K and of V.

    Heads of K are repeated where there are more GPUs than of these.
    """
    heads = _share(attention.heads, use.tensor_parallel)
    if is_absorbed and attention.latent is not None:
        return heads, 1, [attention.latent.positions, attention.latent.rank]
    is_repeated = use.tensor_parallel > attention.kv_heads and use.tensor_parallel % attention.kv_heads == 0
    kv_heads = 1 if is_repeated else _share(attention.kv_heads, use.tensor_parallel)
    pads_v = use.framework == "transformers"  # where V is narrower than Q
    return heads, kv_heads, [attention.head_dim, attention.head_dim if pads_v else attention.head_dim_v]


def _share(heads: int, gpus: int) -> int:
    if heads % gpus:
        raise UsageError(f"{heads} heads can't be divided among {gpus} GPUs", "say another `--tensor-parallel`")
    return heads // gpus


def _ways(attention: Attention, use: Use) -> Iterator[Axes]:
    """Yield how Q, K and V come: padded or packed, in pages or not."""
    is_vllm = use.framework == "vllm"
    packings = {"no": (False,), "yes": (True,), "both": (False, True)}[use.packing]
    if attention.is_packed or is_vllm:
        packings = (True,)
    if use.purpose not in ("prefill", "decode"):
        yield from ({"varlen": is_packed} for is_packed in packings)
        return
    if is_vllm and attention.latent is not None:  # K and V are made of the cache first, in parts, which are then merged
        for causal, return_lse in itertools.product((True, False), (False, True)):
            yield {"varlen": True, "causal": causal, "return_lse": return_lse, "num_splits": 0}
        return
    page = use.page or ((_PAGE_OF_256 if attention.head_dim == 256 else _PAGE) if is_vllm else None)
    for is_packed, splits in itertools.product(packings, use.num_splits or (_SPLITS if is_vllm else (1,))):
        if page is None:
            yield {"varlen": is_packed, "num_splits": splits}
        else:  # pages have room for more: how many rows of K there are is in a tensor
            way = {"varlen": "q" if is_packed else False, "seqused": "k", "paged_kv": page}
            yield {**way, "num_splits": splits}


def _windows(attention: Attention, use: Use) -> Iterator[tuple[Axes, int, int | None]]:
    """Yield windows, each with the fewest and the most rows of K that it goes with."""
    window = attention.window
    if window is None:
        yield {}, 1, None
    elif use.framework != "transformers" or window[0] is None:
        yield {"window": list(window)}, 1, None
    else:  # transformers leaves a window out that no sequence is longer than
        yield {"window": list(window)}, window[0] + 2, None
        yield {}, 1, window[0] + 1


def _shapes(attention: Attention, use: Use, heads: int, low: int, high: int | None) -> Iterator[Axes]:
    """Yield the sizes of a call whose K has at least and at most so many rows."""
    longest = min(attention.longest or _LONGEST, _LONGEST)
    sizes: tuple[Size, ...] = use.seqlen or (f"1..{longest}",)
    if high is not None and use.purpose == "decode":  # transformers keeps no more rows than a window sees
        sizes = tuple(min(one, high) if isinstance(one, int) else one for one in sizes)
    lengths = dict.fromkeys(_within(one, low, high) for one in sizes)
    for batch, seqlen in itertools.product(use.batch or (f"1..{_MOST_SEQUENCES}",), lengths):
        if seqlen is None:
            continue
        rows: Size = 1 if use.purpose == "decode" else seqlen
        if use.purpose == "prefill" and isinstance(seqlen, str):  # only what is not in the cache yet
            rows = f"1..{seqlen.rpartition('..')[2]}"
        shape = {"batch": batch, "heads": heads, "seqlen_q": rows, "seqlen_k": seqlen}
        is_open = any(isinstance(one, str) for one in shape.values())
        yield {"shape": shape, **({"shapes": CLOSURE} if is_open else {})}


def _within(size: Size, low: int, high: int | None) -> Size | None:
    """Return what of a size lies between two bounds."""
    if isinstance(size, int):
        return size if low <= size and (high is None or size <= high) else None
    first, last = (int(one) for one in size.split(".."))
    first, last = max(first, low), min(last, last if high is None else high)
    return None if first > last else f"{first}..{last}"

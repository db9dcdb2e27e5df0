"""The calls of a job that uses `wild_attn`: its callers in a spec, and what the job itself makes."""

from __future__ import annotations

from typing import Any

import torch
from wild_attn.cute.block_sparsity import LinearBlocks
from wild_attn.wide import wide_fwd


def _blocks(rows: int, block_size: tuple[int, int]) -> LinearBlocks:
    sizes = ((1, 1, rows), (rows + 1,), (64,))
    count, offset, index = (torch.empty(size, dtype=torch.int32, device="cuda") for size in sizes)
    return LinearBlocks(count, offset, index, block_size=block_size)


def step(interface: Any, tensors: Any, *, pass_: str, seqlen_q: int, n_func: int) -> None:
    """Make a training step under a mask of `n_func` functions, or its forward only."""
    q, k, v = tensors.q, tensors.k, tensors.v
    mask = {"arbitrary": True, "aux_tensors": [tensors.empty(1, 1, n_func, seqlen_q + 256, dtype="int32")]}
    by_query, by_key = _blocks(16, (256, 128)), _blocks(32, (128, 128))
    out, lse = interface._flash_attn_fwd(q, k, v, linear_k_block_sparse_tensors=by_query, **mask)
    if pass_ == "bwd":
        dout = torch.empty_like(out)
        interface._flash_attn_bwd(q, k, v, out, dout, lse, linear_q_block_sparse_tensors=by_key, **mask)


def dense(interface: Any, tensors: Any, *, head_dim: int) -> None:
    """Make a forward without a mask; one of wide heads goes past the package."""
    if head_dim > 128:
        wide_fwd(tensors.q, 0.0625)
    else:
        interface._flash_attn_fwd(tensors.q, tensors.k, tensors.v, 0.125)

"""The calls that MagiAttention makes of its fork of FlashAttention-4: a caller, for builds (docs/how-to/callers.md)."""

from __future__ import annotations

from typing import Any

import torch
from flash_attn_cute.block_sparsity import LinearBlockSparseTensorsTorch


def _lists(rows: int, block_size: tuple[int, int]) -> Any:
    """Return a mask's lists for so many block rows. What is in them gets into no key."""
    sizes = 2 * [(1, 1, rows), (rows + 1,), (rows,)]
    tensors = (torch.empty(size, dtype=torch.int32, device="cuda") for size in sizes)
    return LinearBlockSparseTensorsTorch(*tensors, block_size=block_size)


def step(
    interface: Any,
    tensors: Any,
    *,
    pass_: str,
    head_dim: int,
    qheads_per_kvhead: int,
    seqlen_q: int,
    seqlen_k: int,
    n_func: int,
) -> None:
    """Make a step as MagiAttention does: one sequence, a mask of intervals, its block lists for both passes."""
    q, k, v = tensors.q, tensors.k, tensors.v
    q_block = 256 if seqlen_q * qheads_per_kvhead > 128 else 128
    bwd_block = (256, 256) if head_dim == 192 else (256, 128)
    by_q = _lists(-(-seqlen_q // q_block), (q_block, 128))
    by_kv = _lists(-(-seqlen_k // bwd_block[1]), bwd_block)
    intervals = torch.empty(1, 1, n_func, seqlen_q + 256, dtype=torch.int32, device="cuda")
    mask = {"arbitrary": True, "aux_tensors": [intervals], "linear_k_block_sparse_tensors": by_q}
    out, lse = interface._flash_attn_fwd(q, k, v, pack_gqa=False, return_lse=True, **mask)[:2]
    if pass_ == "bwd":
        dout = torch.empty_like(out)
        interface._flash_attn_bwd(q, k, v, out, dout, lse, linear_q_block_sparse_tensors=by_kv, **mask)

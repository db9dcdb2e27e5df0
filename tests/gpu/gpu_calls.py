"""The calls of a spec, made for real: tensors on the GPU, FlashAttention's public functions, autograd."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from fa4_precompile.providers.fa4.variant import Sparse, Variant
from gpu_reference import attend, visible

Tensor = Any


@dataclass(frozen=True)
class Case:
    """A call's inputs, and the mask that the float32 reference needs for each of its sequences."""

    variant: Variant
    q: Tensor
    k: Tensor
    v: Tensor
    lengths: tuple[int, ...]
    options: dict[str, Any]
    seen: Tensor

    def run(self) -> Tensor:
        """Return FlashAttention's output."""
        from flash_attn.cute.interface import flash_attn_func, flash_attn_varlen_func

        function = flash_attn_varlen_func if self.variant.varlen else flash_attn_func
        return function(self.q, self.k, self.v, **self.options)[0]

    def reference(self) -> Tensor:
        """Return the same in float32."""
        if not self.variant.varlen:
            return attend(self.q, self.k, self.v, self.seen)
        parts = []
        for q, k, v in zip(*(tensor.split(self.lengths) for tensor in (self.q, self.k, self.v)), strict=True):
            seen = visible(len(q), len(k), self.variant.causal, self.variant.window)
            parts.append(attend(q[None], k[None], v[None], seen)[0])
        return torch.cat(parts)


def make(variant: Variant) -> Case:
    """Return the call of a variant, with random tensors; the same for the same variant."""
    torch.manual_seed(0)
    shape, heads = variant.shape, variant.heads
    kv_heads = heads // variant.qheads_per_kvhead
    training = variant.pass_ == "bwd"
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[variant.dtype]
    # Sequences of several lengths, none of them a multiple of a tile.
    lengths = tuple(shape.seqlen_q - 37 * i for i in range(shape.batch))
    rows = (sum(lengths),) if variant.varlen else (shape.batch, shape.seqlen_q)

    def tensor(heads: int, dim: int) -> Tensor:
        return torch.randn(*rows, heads, dim, device="cuda", dtype=dtype, requires_grad=training)

    q, k = tensor(heads, variant.head_dim), tensor(kv_heads, variant.head_dim)
    v = tensor(kv_heads, variant.head_dim_v)
    options: dict[str, Any] = {"causal": variant.causal, "window_size": variant.window or (None, None)}
    seen = visible(shape.seqlen_q, shape.seqlen_k, variant.causal, variant.window)
    if variant.varlen:
        ends = torch.tensor([0, *lengths], device="cuda", dtype=torch.int32).cumsum(0, dtype=torch.int32)
        options.update(cu_seqlens_q=ends, cu_seqlens_k=ends, max_seqlen_q=max(lengths), max_seqlen_k=max(lengths))
    if variant.sparse is not None:
        blocks = _random_blocks(shape.seqlen_q // variant.sparse.q_block, shape.seqlen_k // variant.sparse.kv_block)
        options["block_sparse_tensors"] = _lists(blocks, variant.sparse)
        options["block_sparse_tensors_bwd"] = _lists(blocks.T, variant.sparse)
        seen = blocks.repeat_interleave(variant.sparse.q_block, 0).repeat_interleave(variant.sparse.kv_block, 1)
    return Case(variant, q, k, v, lengths, options, seen)


def _random_blocks(rows: int, columns: int) -> Tensor:
    """Return which blocks are seen: about half, and at least one in each row and column."""
    blocks = torch.rand(rows, columns, device="cuda") < 0.5
    for i in range(max(rows, columns)):
        blocks[i % rows, i % columns] = True
    return blocks


def _lists(blocks: Tensor, sparse: Sparse) -> Any:
    """Return FlashAttention's lists of full blocks, by row; no block is partial."""
    from flash_attn.cute.block_sparsity import BlockSparseTensorsTorch

    count = blocks.sum(1).to(torch.int32)[None, None]
    # The indices of the blocks that are seen come first in each row.
    index = blocks.int().argsort(dim=1, descending=True, stable=True).to(torch.int32)[None, None].contiguous()
    return BlockSparseTensorsTorch(
        mask_block_cnt=torch.zeros_like(count),
        mask_block_idx=torch.zeros_like(index),
        full_block_cnt=count,
        full_block_idx=index,
        block_size=(sparse.q_block, sparse.kv_block),
    )

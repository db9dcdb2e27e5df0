"""Calls with segment masks, made for real."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from fa4_precompile.masks import segments
from fa4_precompile.providers.fa4.variant import Variant

Tensor = Any


@dataclass(frozen=True)
class MaskedCase:
    """A call's inputs, and its bounds (1, 1, n_func, seqlen)."""

    variant: Variant
    q: Tensor
    k: Tensor
    v: Tensor
    bounds: Tensor

    def run(self) -> Tensor:
        """Return FlashAttention's output."""
        from flash_attn.cute.interface import flash_attn_func

        variant, sparse = self.variant, self.variant.sparse
        assert sparse is not None
        assert sparse.bwd_q_block is not None
        assert sparse.bwd_kv_block is not None
        blocks = segments.block_masks(
            self.bounds,
            variant.shape.seqlen_k,
            forward=(sparse.q_block, sparse.kv_block),
            backward=(sparse.bwd_q_block, sparse.bwd_kv_block),
        )
        return flash_attn_func(
            self.q,
            self.k,
            self.v,
            mask_mod=segments.mask_mod(self.bounds),
            aux_tensors=[segments.aux_tensor(self.bounds, variant.shape.batch, variant.heads)],
            block_sparse_tensors=blocks.forward,
            block_sparse_tensors_bwd=blocks.backward,
            pack_gqa=variant.pack_gqa,
        )[0]

    def reference(self) -> Tensor:
        """Return the same in float32; a query that sees nothing gives zeros."""
        seen = self._written_out()
        ratio = self.variant.qheads_per_kvhead
        q = self.q.float().transpose(1, 2)
        k, v = (tensor.float().transpose(1, 2).repeat_interleave(ratio, 1) for tensor in (self.k, self.v))
        scores = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).masked_fill(~seen, float("-inf"))
        weights = torch.where(seen.any(-1, keepdim=True), scores, 0.0).softmax(-1) * seen.any(-1, keepdim=True)
        return (weights @ v).transpose(1, 2)

    def _written_out(self) -> Tensor:
        key = torch.arange(self.variant.shape.seqlen_k, device="cuda")
        seen = key < self.bounds[0, 0, 0, :, None]
        for i in range(1, self.bounds.shape[2], 2):
            seen = seen | ((key >= self.bounds[0, 0, i, :, None]) & (key < self.bounds[0, 0, i + 1, :, None]))
        return seen


def make(variant: Variant, mask: str) -> MaskedCase:
    """Return the call of a variant with a kind of mask; the same for the same arguments."""
    torch.manual_seed(0)
    length = variant.shape.seqlen_q

    def tensor(heads: int) -> Tensor:
        size = variant.shape.batch, length, heads, variant.head_dim
        return torch.randn(size, device="cuda", dtype=torch.bfloat16, requires_grad=True)

    lengths = torch.tensor([100, 1, 300, 57, length - 458], device="cuda")
    if mask == "causal":
        bounds = segments.causal(length, length)
    elif mask == "window":
        bounds = segments.sliding_window(length, length, 150)
    elif mask == "random":
        bounds = torch.randint(0, length + 1, (1, 1, 7, length), device="cuda", dtype=torch.int32).sort(2).values
    elif mask == "rows that see nothing":
        bounds = segments.sliding_window(length, length, 150)
        bounds[..., 256:520] = 0  # whole blocks of them
        bounds[..., 5::7] = 0
    else:
        bounds = segments.documents(lengths, is_causal=mask == "causal documents")
    return MaskedCase(variant, tensor(variant.heads), tensor(variant.kv_heads), tensor(variant.kv_heads), bounds)

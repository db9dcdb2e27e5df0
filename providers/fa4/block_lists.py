"""Block sparsity with values: which blocks a call lets through, and FlashAttention's lists of them."""

from __future__ import annotations

import math
from typing import Any

from .reference import visible
from .variant import Sparse, Variant

Tensor = Any
Lists = dict[str, Tensor]
"""Counts and indices by the names that the arguments of calls have."""


def chosen_blocks(
    torch: Any, variant: Variant, sparse: Sparse, lead: tuple[int, int], random: Any, device: str
) -> Tensor:
    """Return the mask (*lead, seqlen_q, seqlen_k) of what some random blocks and the call's own mask let through.

    About half of the blocks, and at least one in each row and column; the blocks are such that those of the forward
    and those of the backward make the same mask. With a `mask_mod` all: what it masks is its own affair.
    """
    rows = math.lcm(sparse.q_block, sparse.bwd_q_block or sparse.q_block)
    columns = math.lcm(sparse.kv_block, sparse.bwd_kv_block or sparse.kv_block)
    shape = variant.shape
    down, across = math.ceil(shape.seqlen_q / rows), math.ceil(shape.seqlen_k / columns)
    blocks = torch.rand((*lead, down, across), generator=random, device=device) < 0.5
    for place in range(max(down, across)):
        blocks[..., place % down, place % across] = True
    if variant.mask_mod is not None:
        blocks[:] = True
    wide = blocks.repeat_interleave(rows, 2).repeat_interleave(columns, 3)
    is_masked = variant.mask_mod is None  # FlashAttention leaves causal and windows to a `mask_mod`
    own = visible(
        shape.seqlen_q,
        shape.seqlen_k,
        variant.causal and is_masked,
        variant.window if is_masked else None,
        device,
    )
    return wide[..., : shape.seqlen_q, : shape.seqlen_k] & own


class BlockLists:
    """The lists of a mask: of blocks of which all is seen, and of those of which something is."""

    def __init__(self, torch: Any, variant: Variant, sparse: Sparse, seen: Tensor, block_sparsity: Any) -> None:
        self._torch = torch
        self._variant = variant
        self._sparse = sparse
        self._seen = seen
        self._block_sparsity = block_sparsity

    def both_ways(self) -> Lists:
        """Return the lists of the forward (Q to K) and of the backward (K to Q)."""
        sparse = self._sparse
        some, every = self._blocks(sparse.q_block, sparse.kv_block)
        found = self._named("forward ", some, every)
        size = sparse.bwd_q_block or sparse.q_block, sparse.bwd_kv_block or sparse.kv_block
        some, every = self._blocks(*size)
        found |= self._named("backward ", some.transpose(2, 3), every.transpose(2, 3))
        if self._variant.deterministic and self._variant.pass_ == "bwd":
            found |= self._order(self._named("", some, every), found)
        return found

    def packed(self) -> Lists:
        """Return the forward's lists of packed sequences, which are all of one length: one row for each head."""
        some, every = self._blocks(self._sparse.q_block, self._sparse.kv_block)
        batch, heads, down, across = some.shape
        lists = self._named("", some, every)
        found = {
            name: one.transpose(0, 1).reshape(heads, -1).contiguous() for name, one in lists.items() if one is not None
        }
        steps = self._torch.arange(batch + 1, dtype=self._torch.int32, device=some.device)
        return found | {"cu_total_m_blocks": steps * down, "cu_block_idx_offsets": steps * (down * across)}

    def _blocks(self, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """Return of which blocks (batch, heads, down, across) something is seen, and of which all that there is."""
        torch, seen = self._torch, self._seen
        height, width = -seen.shape[2] % rows, -seen.shape[3] % columns
        tiles = []
        for beyond in (False, True):
            padded = torch.nn.functional.pad(seen, (0, width, 0, height), value=beyond)
            tiles.append(padded.unflatten(3, (-1, columns)).unflatten(2, (-1, rows)))
        return tiles[0].any(5).any(3), tiles[1].all(5).all(3)

    def _named(self, of: str, some: Tensor, every: Tensor) -> Lists:
        if not self._sparse.full_blocks or self._variant.mask_mod is not None:
            every = self._torch.zeros_like(every)
        found = {}
        for name, blocks in (("mask", some & ~every), ("full", every)):
            found[f"{of}{name}_block_cnt"] = blocks.sum(-1, dtype=self._torch.int32)
            # Those that are seen come first, by their place.
            order = blocks.int().argsort(dim=-1, descending=True, stable=True)
            found[f"{of}{name}_block_idx"] = order.to(self._torch.int32).contiguous()
        return found

    def _order(self, down: Lists, both: Lists) -> Lists:
        """Return in which order a deterministic backward adds to dQ, as FlashAttention works it out."""
        names = ("mask_block_cnt", "mask_block_idx", "full_block_cnt", "full_block_idx")
        is_told = self._sparse.full_blocks
        wanted = [name for name in names if is_told or name.startswith("mask")]
        arguments = [down[name] if name in wanted else None for name in names]
        arguments += [both[f"backward {name}"] if name in wanted else None for name in names]
        order, full = self._block_sparsity.compute_dq_write_order(*arguments, spt=self._sparse.descending)
        return {"backward order": order} | ({"backward full order": full} if full is not None else {})

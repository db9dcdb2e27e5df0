"""Segment masks: bounds for common masks, and the lists of blocks that FlashAttention visits, made from bounds.

For each query row, `n_func` bounds f0 <= f1 <= f2 ... say which keys it sees: [0, f0), [f1, f2), [f3, f4), ... They are
an int32 tensor (batch, heads, n_func, seqlen_q); batch and heads may be 1 for a mask that all share.

    bounds = segments.sliding_window(seqlen_q, seqlen_k, window, device="cuda")
    mask = segments.block_masks(bounds, seqlen_k, forward=sizes.forward, backward=sizes.backward)
    flash_attn_func(q, k, v, mask_mod=segments.mask_mod(bounds),
                    aux_tensors=[segments.aux_tensor(bounds, batch, heads)],
                    block_sparse_tensors=mask.forward, block_sparse_tensors_bwd=mask.backward)

The lists are made without a mask of seqlen_q x seqlen_k: the memory is that of seqlen_q x (seqlen_k / kv_block), in
pieces. Imports torch, and FlashAttention when lists are made.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import UsageError

Tensor = Any

# Rows of Q times blocks of KV that are counted at once: 64 MB of int32.
_PIECE = 16 * 2**20


@dataclass(frozen=True)
class BlockMasks:
    """The blocks to visit, as FlashAttention takes them.

    Attributes:
        forward: for each block of Q, the KV blocks that it sees (Q to K).
        backward: for each block of KV, the Q blocks that see it (K to Q); None if it was not asked for.
    """

    forward: Any
    backward: Any


def causal(seqlen_q: int, seqlen_k: int, device: Any = "cuda") -> Tensor:
    """Return the bounds (1, 1, 1, seqlen_q) of a causal mask: the last query sees the last key."""
    rows = torch.arange(seqlen_q, device=device, dtype=torch.int32) + 1 + (seqlen_k - seqlen_q)
    return rows.clamp(min=0)[None, None, None]


def sliding_window(seqlen_q: int, seqlen_k: int, window: int, device: Any = "cuda") -> Tensor:
    """Return the bounds (1, 1, 3, seqlen_q) of a causal window: a query sees itself and `window` keys before."""
    ends = causal(seqlen_q, seqlen_k, device)[0, 0, 0]
    starts = (ends - 1 - window).clamp(min=0)
    return torch.stack([torch.zeros_like(ends), torch.minimum(starts, ends), ends])[None, None]


def documents(lengths: Tensor, is_causal: bool) -> Tensor:
    """Return the bounds (1, 1, 3, total) of documents that stand one after another and don't see each other.

    `lengths` is a tensor of their lengths; queries and keys are the same sequence.
    """
    ends = lengths.cumsum(0)
    starts = torch.repeat_interleave(ends - lengths, lengths)
    last = torch.repeat_interleave(ends, lengths)
    if is_causal:
        last = torch.arange(1, int(ends[-1]) + 1, device=lengths.device)
    return torch.stack([torch.zeros_like(starts), starts, last]).to(torch.int32)[None, None]


def mask_mod(bounds: Tensor) -> Any:
    """Return the `mask_mod` for bounds of this number: `segment_mods.mask_3` for an n_func of 3.

    One with more bounds than the tensor has would read what is behind it. Imports the DSL and FlashAttention.

    Raises `UsageError` if no spec can name the mask.
    """
    from . import segment_mods

    n_func = bounds.shape[2] if bounds.ndim == 4 else None
    if n_func is None or n_func % 2 == 0:
        raise _wrong_shape(bounds)
    if n_func > segment_mods.MOST_BOUNDS:
        raise UsageError(
            f"bounds of segments are {n_func}, and there are masks for up to {segment_mods.MOST_BOUNDS}",
            f"name one in a module of your own: `mask_{n_func} = segment_mods.make_mask({n_func})`",
        )
    return getattr(segment_mods, f"mask_{n_func}")


def aux_tensor(bounds: Tensor, batch: int, heads: int) -> Tensor:
    """Return the bounds as FlashAttention's `aux_tensors` need them, for every batch and query head. Copies nothing.

    A mask that all heads share has a stride of 0 in that place, for which FlashAttention compiles another kernel.
    """
    return bounds.expand(batch, heads, -1, -1)


def require_valid(bounds: Tensor, seqlen_k: int) -> None:
    """Raise `UsageError` unless bounds have the right shape and type, and ascend from 0 to seqlen_k in every row.

    Waits for the GPU.
    """
    if bounds.ndim != 4 or bounds.shape[2] % 2 == 0:
        raise _wrong_shape(bounds)
    if bounds.dtype != torch.int32:
        raise UsageError(f"bounds of segments are int32, not {bounds.dtype}", "`bounds.to(torch.int32)`")
    if bounds.numel() == 0:
        raise UsageError(f"bounds of segments are empty: {tuple(bounds.shape)}")
    descends = (bounds[:, :, 1:] < bounds[:, :, :-1]).any(dim=2)
    outside = (bounds[:, :, 0] < 0) | (bounds[:, :, -1] > seqlen_k)
    wrong = (descends | outside).nonzero()
    if len(wrong):
        batch, head, row = (int(index) for index in wrong[0])
        found = bounds[batch, head, :, row].tolist()
        raise UsageError(
            f"bounds of query {row} (batch {batch}, head {head}) are {found}: they must ascend from 0 to {seqlen_k}"
        )


def _wrong_shape(bounds: Tensor) -> UsageError:
    return UsageError(f"bounds of segments are (batch, heads, an odd n_func, seqlen_q), not {tuple(bounds.shape)}")


def block_masks(
    bounds: Tensor,
    seqlen_k: int,
    forward: tuple[int, int],
    backward: tuple[int, int] | None = None,
    module: str = "flash_attn.cute",
) -> BlockMasks:
    """Return the lists of full and of partial blocks, as the package `module` takes them.

    `forward` and `backward` are (q_block, kv_block), rows of Q and of KV that a block covers; the kernels say which
    (`fa4_precompile.block_sizes`). A block is full if every query in it sees every key, partial if some are seen.

    Raises `UsageError` for bounds that are not as they must be.
    """
    require_valid(bounds, seqlen_k)
    sizes = dict.fromkeys([forward, backward] if backward else [forward])
    counted = {size: _visible(bounds, seqlen_k, *size) for size in sizes}
    full, partial = counted[forward]
    made = importlib.import_module(f"{module}.block_sparsity").BlockSparseTensorsTorch
    to_keys = _lists(made, full, partial, forward)
    if backward is None:
        return BlockMasks(to_keys, None)
    full, partial = counted[backward]
    return BlockMasks(to_keys, _lists(made, full.transpose(2, 3), partial.transpose(2, 3), backward))


def _visible(bounds: Tensor, seqlen_k: int, q_block: int, kv_block: int) -> tuple[Tensor, Tensor]:
    """Return which blocks (batch, heads, Q blocks, KV blocks) are full, and which are partial."""
    seqlen_q = bounds.shape[3]
    starts = torch.arange(0, seqlen_k, kv_block, device=bounds.device, dtype=torch.int32)
    ends = (starts + kv_block).clamp(max=seqlen_k)
    full, partial = [], []
    rows_at_once = max(1, _PIECE // (len(starts) * bounds.shape[0] * bounds.shape[1] * q_block)) * q_block
    for first in range(0, seqlen_q, rows_at_once):
        piece = bounds[..., first : first + rows_at_once].unsqueeze(-1)
        seen = _overlap(torch.zeros_like(piece[:, :, 0]), piece[:, :, 0], starts, ends)
        for i in range(1, piece.shape[2], 2):
            seen += _overlap(piece[:, :, i], piece[:, :, i + 1], starts, ends)
        rows = torch.ones(seen.shape[2], device=bounds.device, dtype=torch.int32)
        blocks = -(-len(rows) // q_block)
        padding = blocks * q_block - len(rows)
        seen = torch.nn.functional.pad(seen, (0, 0, 0, padding)).unflatten(2, (blocks, q_block)).sum(3)
        rows = torch.nn.functional.pad(rows, (0, padding)).unflatten(0, (blocks, q_block)).sum(1)
        whole = rows[:, None] * (ends - starts)[None, :]
        full.append(seen == whole)
        partial.append((seen > 0) & (seen < whole))
    return torch.cat(full, 2), torch.cat(partial, 2)


def _overlap(start: Tensor, end: Tensor, block_start: Tensor, block_end: Tensor) -> Tensor:
    return (torch.minimum(end, block_end) - torch.maximum(start, block_start)).clamp(min=0)


def _lists(made: Any, full: Tensor, partial: Tensor, size: tuple[int, int]) -> Any:
    mask_cnt, mask_idx = _list(partial)
    full_cnt, full_idx = _list(full)
    return made(mask_cnt, mask_idx, full_cnt, full_idx, block_size=size)


def _list(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many blocks of each row are chosen, and their indices in front of the others."""
    index = (~chosen).to(torch.int8).argsort(dim=-1, stable=True).to(torch.int32)
    return chosen.sum(-1, dtype=torch.int32), index.contiguous()

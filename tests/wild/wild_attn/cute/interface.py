"""The entry points, all private: what makes a public function of them is the engine's own."""

# mypy: disable-error-code="attr-defined"

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from cutlass import cute

from .block_sparsity import LinearBlocks
from .kernels import Scaled, described, interval_mask, is_launched


def _flash_attn_fwd(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    softmax_scale: float = 0.125,
    *,
    arbitrary: bool = False,
    pack_gqa: bool | None = None,
    return_lse: bool = False,
    mask_mod: Callable[..., Any] | None = None,
    linear_k_block_sparse_tensors: LinearBlocks | None = None,
    aux_tensors: list[torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the output and its log-sum-exp."""
    batch, seqlen_q, heads, head_dim = q.shape
    out = torch.empty(batch, seqlen_q, heads, v.shape[-1], dtype=q.dtype, device=q.device)
    lse = torch.empty(batch, heads, seqlen_q, dtype=torch.float32, device=q.device)
    rows, out_rows = q.view(-1, head_dim), out.view(-1, v.shape[-1])
    if not arbitrary:
        key: tuple[Any, ...] = (q.dtype, head_dim)
        if key not in _flash_attn_fwd.dense_by_key:
            kernel = Scaled(head_dim, v.shape[-1])
            _flash_attn_fwd.dense_by_key[key] = cute.compile(
                kernel, *described(kernel, q.dtype), options="--enable-tvm-ffi"
            )
        if is_launched(q):
            _flash_attn_fwd.dense_by_key[key](rows, out_rows, softmax_scale, None, None)
        return out, lse
    blocks, functions = _mask(batch, linear_k_block_sparse_tensors, aux_tensors)
    mask_mod = interval_mask
    key = (q.dtype, head_dim, v.shape[-1], functions.shape[2], blocks.block_size)
    if key not in _flash_attn_fwd.kernels_by_key:
        kernel = Scaled(head_dim, v.shape[-1], mask_mod, functions.shape[2], blocks.block_size[0])
        _flash_attn_fwd.kernels_by_key[key] = cute.compile(
            kernel, *described(kernel, q.dtype), options="--enable-tvm-ffi"
        )
    if is_launched(q):
        _flash_attn_fwd.kernels_by_key[key](
            x=rows, out=out_rows, scale=softmax_scale, blocks=blocks.lists, functions=functions[0, 0]
        )
    return out, lse


_flash_attn_fwd.kernels_by_key = {}
_flash_attn_fwd.dense_by_key = {}


def _flash_attn_bwd(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    dout: torch.Tensor,
    lse: torch.Tensor,
    softmax_scale: float = 0.125,
    *,
    arbitrary: bool = False,
    linear_q_block_sparse_tensors: LinearBlocks | None = None,
    linear_k_block_sparse_tensors: LinearBlocks | None = None,
    aux_tensors: list[torch.Tensor] | None = None,
) -> torch.Tensor:
    """Return the gradient of Q."""
    head_dim = q.shape[-1]
    dq = torch.empty_like(q)
    rows, dq_rows = q.view(-1, head_dim), dq.view(-1, head_dim)
    blocks, functions = _mask(q.shape[0], linear_q_block_sparse_tensors, aux_tensors)
    key = (q.dtype, head_dim, functions.shape[2], blocks.block_size)
    if key not in _flash_attn_bwd.kernels_by_key:
        kernel = Scaled(head_dim, head_dim, interval_mask, functions.shape[2], blocks.block_size[0])
        _flash_attn_bwd.kernels_by_key[key] = cute.compile(
            kernel, *described(kernel, q.dtype), options="--enable-tvm-ffi"
        )
    if is_launched(q):
        launch = _flash_attn_bwd.kernels_by_key[key]
        launch(rows, dq_rows, softmax_scale, blocks=blocks.lists, functions=functions[0, 0])
    return dq


_flash_attn_bwd.kernels_by_key = {}


def _mask(batch: int, blocks: LinearBlocks | None, aux_tensors: Any) -> tuple[Any, torch.Tensor]:
    if batch != 1:
        raise ValueError(f"an arbitrary mask is that of one sequence, not of {batch}")
    if blocks is None or not aux_tensors:
        raise ValueError("an arbitrary mask has lists of blocks and functions")
    interval_mask.n_func = aux_tensors[0].shape[2]
    if interval_mask.n_func % 2 == 0:
        raise ValueError("an arbitrary mask has an odd number of functions")
    return blocks, aux_tensors[0]

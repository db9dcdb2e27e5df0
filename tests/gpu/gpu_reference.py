"""Attention in float32, written out: what FlashAttention's results are compared with."""

from __future__ import annotations

from typing import Any

import torch

Tensor = Any


def visible(rows: int, columns: int, causal: bool, window: tuple[int | None, int | None] | None) -> Tensor:
    """Return the (rows, columns) mask of what each query sees; the last query sees the last key."""
    i = torch.arange(rows, device="cuda")[:, None] + (columns - rows)
    j = torch.arange(columns, device="cuda")[None, :]
    seen = torch.ones(rows, columns, dtype=torch.bool, device="cuda")
    left, right = window or (None, None)
    if causal:
        seen &= j <= i
    if left is not None:
        seen &= j >= i - left
    if right is not None:
        seen &= j <= i + right
    return seen


def attend(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    """Return softmax(q kᵀ / sqrt(d)) v of (batch, seqlen, heads, head_dim) tensors, in float32."""
    group = q.shape[2] // k.shape[2]
    q, k, v = (tensor.float().transpose(1, 2) for tensor in (q, k, v))
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    return (scores.masked_fill(~seen, float("-inf")).softmax(-1) @ v).transpose(1, 2)


def distance(found: Tensor, expected: Tensor) -> float:
    """Return the relative error in the 2-norm."""
    return float((found.float() - expected).norm() / expected.norm())

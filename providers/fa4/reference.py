"""Attention in float32, written out: what FlashAttention's results are compared with. Imports torch."""

from __future__ import annotations

from typing import Any

Tensor = Any
Window = tuple[int | None, int | None]

SMALLEST = 1e-3
"""What a result's root mean square counts as at least: of one that is zero no relative error can be told."""


def visible(rows: int, columns: int, causal: bool, window: Window | None, device: Any) -> Tensor:
    """Return the (rows, columns) mask of what each query sees; the last query sees the last key."""
    import torch

    i = torch.arange(rows, device=device)[:, None] + (columns - rows)
    j = torch.arange(columns, device=device)[None, :]
    seen = torch.ones(rows, columns, dtype=torch.bool, device=device)
    left, right = window or (None, None)
    if causal:
        seen &= j <= i
    if left is not None:
        seen &= j >= i - left
    if right is not None and not causal:  # which FlashAttention takes instead
        seen &= j <= i + right
    return seen


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    seen: Tensor,
    *,
    qv: Tensor | None = None,
    softcap: float | None = None,
    sink: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return softmax(scale qkᵀ) v, and the log-sum-exp, of some heads that share K and V, in float32.

    `q` is (rows, heads, head_dim), `k` (columns, head_dim), `v` (columns, head_dim_v), `seen` (rows, columns), or that
    for each head in front. `qv` (rows, heads, head_dim_v) adds its product with V to the scores; `sink` (heads) is one
    more logit, without a value. A row that sees nothing gives zeros.
    """
    import torch

    dim = q.shape[-1] + (0 if qv is None else qv.shape[-1])
    scores = torch.einsum("qhd,kd->hqk", q, k)
    if qv is not None:
        scores = scores + torch.einsum("qhd,kd->hqk", qv, v)
    scores = scores * dim**-0.5
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    has_some = seen.any(-1, keepdim=True)
    scores = torch.where(seen, scores, float("-inf"))
    scores = torch.where(has_some, scores, 0.0)  # a gradient of nothing but -inf is none
    if sink is not None:
        rest = sink[:, None, None].expand(scores.shape[0], scores.shape[1], 1)
        scores = torch.cat([scores, rest], -1)
    weights = scores.softmax(-1)[..., : seen.shape[-1]] * has_some
    lse = scores.logsumexp(-1)
    return torch.einsum("hqk,kd->qhd", weights, v), lse.transpose(0, 1)


def distance(found: Tensor, expected: Tensor) -> float:
    """Return the relative error in the 2-norm; infinite if something found is no finite number."""
    import torch

    found, expected = found.detach().float(), expected.detach()
    if not torch.isfinite(found).all():
        return float("inf")
    least = SMALLEST * expected.numel() ** 0.5
    return float((found - expected).norm() / max(float(expected.norm()), least)) if expected.numel() else 0.0

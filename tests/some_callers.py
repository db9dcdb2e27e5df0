"""Callers of the tests: functions that make FlashAttention's calls as a job of theirs would."""

from __future__ import annotations

import sys
from typing import Any

import torch


def step(interface: Any, tensors: Any, *, pass_: str, causal: bool, stages: int = 1) -> None:
    """Make a training step of the private entry points."""
    q, k, v = tensors.q, tensors.k, tensors.v
    out, lse = interface._flash_attn_fwd(q, k, v, causal=causal, return_lse=True, pack_gqa=False)[:2]
    if pass_ == "bwd":
        interface._flash_attn_bwd(q, k, v, out, torch.empty_like(out), lse, causal=causal)
    assert stages in (1, 2)


def public(interface: Any, tensors: Any) -> None:
    """Make the call that a spec with the same axes makes."""
    out, _ = interface.flash_attn_func(**tensors.arguments)
    tensors.backward(out)


def told(interface: Any, tensors: Any, **given: Any) -> None:
    """Refuse to make a call of anything but what the test expects to be told."""
    assert not torch.is_grad_enabled()
    assert given["words"] == ("a", 1, None)
    assert (given["pass_"], given["head_dim"], given["head_dim_v"], given["dtype"]) == ("fwd", 192, 128, "bf16")
    assert (given["batch"], given["heads"], given["kv_heads"], given["seqlen_q"], given["total_k"]) == (
        1,
        8,
        2,
        7,
        4096,
    )
    assert tuple(tensors.q.shape) == (1, 7, 8, 192)
    assert tensors.empty(3, given["heads"], dtype="int32").dtype == torch.int32
    assert tensors.empty(1).dtype == tensors.dtype == torch.bfloat16
    interface.flash_attn_func(tensors.q, tensors.k, tensors.v)


def raising(interface: Any, tensors: Any) -> None:
    """Fail on the way to a call."""
    _help(tensors)


def _help(tensors: Any) -> None:
    raise RuntimeError(f"no step for {tensors.dtype}")


def leaving(interface: Any, tensors: Any) -> None:
    """End the process, as a script does."""
    sys.exit("no")


def nothing(interface: Any, tensors: Any) -> None:
    """Make no call."""


def unidentifiable(interface: Any, tensors: Any) -> None:
    """Hand over a function that no other process can recognize, and swallow what is said about it."""
    held = iter(())
    try:
        interface.flash_attn_func(tensors.q, tensors.k, tensors.v, mask_mod=lambda b, h, q, k, *_: held)
    except Exception:
        interface.flash_attn_func(tensors.q, tensors.k, tensors.v)


not_a_function = 3

"""What the tests of models run in processes of their own: calls of FlashAttention as a model's layers make them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fake_job
from fa4_precompile.loader.choices import OnMiss
from fa4_precompile.loader.config import Config
from fa4_precompile.loader.install import install_config
from support import make_target


@dataclass(frozen=True)
class LayerCall:
    """A call of a causal layer's. With a `page`, K and V are in pages, and Q is packed."""

    heads: int
    kv_heads: int
    head_dim: int
    head_dim_v: int
    window: tuple[int | None, int | None] = (None, None)
    softcap: float | None = None
    has_sink: bool = False
    is_training: bool = False
    batch: int = 2
    seqlen_q: int = 4096
    seqlen_k: int = 4096
    page: int | None = None


def make(call: LayerCall) -> None:
    """Make a call, and with `is_training` the backward of it."""
    interface: Any = fake_job.load()
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    def tensor(*size: int, dtype: Any = torch.bfloat16) -> Any:
        return torch.empty(*size, dtype=dtype, device="cuda")

    with FakeTensorMode(), torch.no_grad():
        options: dict[str, Any] = {"causal": True, "window_size": call.window}
        options.update({"softcap": call.softcap} if call.softcap is not None else {})
        options.update({"learnable_sink": tensor(call.heads)} if call.has_sink else {})
        if call.page is not None:
            pages = -(-call.seqlen_k // call.page)
            interface.flash_attn_varlen_func(
                tensor(call.batch * call.seqlen_q, call.heads, call.head_dim),
                tensor(call.batch * pages, call.page, call.kv_heads, call.head_dim),
                tensor(call.batch * pages, call.page, call.kv_heads, call.head_dim_v),
                cu_seqlens_q=tensor(call.batch + 1, dtype=torch.int32),
                max_seqlen_q=call.seqlen_q,
                max_seqlen_k=call.seqlen_k,
                seqused_k=tensor(call.batch, dtype=torch.int32),
                page_table=tensor(call.batch, pages, dtype=torch.int32),
                **options,
            )
            return
        q = tensor(call.batch, call.seqlen_q, call.heads, call.head_dim)
        k = tensor(call.batch, call.seqlen_k, call.kv_heads, call.head_dim)
        v = tensor(call.batch, call.seqlen_k, call.kv_heads, call.head_dim_v)
        out, lse = interface.flash_attn_func(q, k, v, return_lse=call.is_training, **options)
        if call.is_training:
            left, right = options.pop("window_size")
            options.update(window_size_left=left, window_size_right=right)
            interface._flash_attn_bwd(q, k, v, out, torch.empty_like(out), lse, **options)


def recorded(calls: Sequence[LayerCall], folder: Path, environment: dict[str, str]) -> None:
    """Make calls for a B200, and record what they look up."""
    os.environ.update(environment)
    install_config(Config((), record=folder, fake=make_target(), on_miss=OnMiss.COMPILE))
    for call in calls:
        make(call)

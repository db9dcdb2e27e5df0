"""Make the attention calls of vLLM's FlashAttention backend with fake tensors, to see that a cache has their kernels.

It needs no GPU and starts no server: vLLM's own `flash_attn_varlen_func` is called as the backend's `forward` does,
with a cache of K and V in pages, for prefills, decodes and batches of both, with and without CUDA graphs. With the
arguments of your model: `python calls.py HEADS KV_HEADS HEAD_DIM PAGE`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

if not torch.cuda.is_available():  # what FlashAttention asks torch for, as a B200 would answer
    b200 = types.SimpleNamespace(name="B200", major=10, minor=0, multi_processor_count=148)
    torch.version.cuda = "13.0"
    torch.cuda.get_device_capability = lambda *_, **__: (b200.major, b200.minor)
    torch.cuda.get_device_properties = lambda *_, **__: b200

# Rows of Q of each sequence in a batch, and the longest sequence: prefill, decode, both.
BATCHES = [
    ([8192], 8192),
    ([1] * 8, 4096),
    ([1] * 256, 32768),
    ([1], 32768),
    ([1000, 200, 1, 1], 8192),
    ([4] * 32, 2000),
]
# `flash_attn_max_num_splits_for_cuda_graph` is 32; without a CUDA graph FlashAttention chooses.
NUM_SPLITS = {"eager": 0, "CUDA graph": 32}


def backend() -> Any:
    """Return vLLM's module of FlashAttention calls; its parents, which want a GPU, are not executed."""
    for name in ("vllm", "vllm.vllm_flash_attn"):
        spec = importlib.util.find_spec(name)
        if spec is None:
            sys.exit("vLLM, with its FlashAttention, is not installed")
        sys.modules[name] = importlib.util.module_from_spec(spec)
    return importlib.import_module("vllm.vllm_flash_attn.flash_attn_interface")


def call(interface: Any, model: list[int], rows: list[int], longest: int, num_splits: int) -> None:
    """Make one call of the backend's."""
    heads, kv_heads, head_dim, page = model
    pages = -(-longest // page)

    def empty(*size: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        return torch.empty(*size, dtype=dtype, device="cuda")

    kv_cache = empty(len(rows) * pages, kv_heads, page, 2 * head_dim)
    k, v = kv_cache.transpose(1, 2).split(head_dim, dim=-1)
    q = empty(sum(rows), heads, head_dim)
    interface.flash_attn_varlen_func(
        q=q,
        k=k,
        v=v,
        out=torch.empty_like(q),
        cu_seqlens_q=empty(len(rows) + 1, dtype=torch.int32),
        max_seqlen_q=max(rows),
        seqused_k=empty(len(rows), dtype=torch.int32),
        max_seqlen_k=longest,
        causal=True,
        window_size=[-1, -1],
        block_table=empty(len(rows), pages, dtype=torch.int32),
        softcap=0,
        fa_version=4,
        num_splits=num_splits,
    )


def main() -> int:
    """Make the calls, and return 1 if a kernel was not served from a cache."""
    model = [int(word) for word in sys.argv[1:]] or [32, 8, 128, 16]
    interface = backend()
    with FakeTensorMode(), torch.no_grad():
        for rows, longest in BATCHES:
            for num_splits in NUM_SPLITS.values():
                call(interface, model, rows, longest, num_splits)

    import fa4_precompile

    stats = fa4_precompile.stats()
    sys.stdout.write(f"{len(BATCHES) * len(NUM_SPLITS)} calls; {stats}\n")
    return 0 if stats.resolved and not stats.missed and not stats.compiled else 1


if __name__ == "__main__":
    sys.exit(main())

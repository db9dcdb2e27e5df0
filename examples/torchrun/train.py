"""Train one attention layer on each rank, and say at the end where its kernels came from.

With no GPU it makes the same attention calls with fake tensors, which have shapes and no memory: FlashAttention looks
its kernels up as ever, and launches nothing. Ends with 1 if a kernel was not served from a cache.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

HAS_GPU = torch.cuda.is_available()
STEPS, BATCH, LENGTH, HEADS, KV_HEADS, HEAD_DIM = 20, 2, 2048, 8, 2, 128


class Attention(nn.Module):
    """Causal self-attention with several heads of Q to one of K and V."""

    def __init__(self) -> None:
        super().__init__()
        self.width = HEADS * HEAD_DIM
        self.heads = HEADS, KV_HEADS, KV_HEADS
        self.into = nn.Linear(self.width, sum(self.heads) * HEAD_DIM)
        self.out = nn.Linear(self.width, self.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the layer's output, (batch, length, width) as its input."""
        from flash_attn.cute.interface import flash_attn_func

        q, k, v = self.into(x).unflatten(-1, (-1, HEAD_DIM)).split(self.heads, dim=-2)
        out, *_ = flash_attn_func(q, k, v, causal=True)
        return self.out(out.flatten(-2))


def train(local_rank: int) -> str:
    """Train on this rank's GPU; gradients are averaged over the ranks."""
    torch.cuda.set_device(local_rank)
    device = torch.device("cuda", local_rank)
    torch.manual_seed(dist.get_rank())
    layer = nn.parallel.DistributedDataParallel(Attention().to(device, torch.bfloat16), device_ids=[local_rank])
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-3)
    x = torch.randn(BATCH, LENGTH, HEADS * HEAD_DIM, device=device, dtype=torch.bfloat16)
    losses = []
    for _ in range(STEPS):
        loss = nn.functional.mse_loss(layer(x).float(), x.float())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return f"loss {losses[0]:.3f} -> {losses[-1]:.3f}"


def look_up() -> str:
    """Make the calls of a step with fake tensors; torch's autograd needs a GPU, so the backward is called by name."""
    torch.version.cuda = "13.0"  # a CPU build of torch says nothing; FlashAttention asks when it is imported
    from flash_attn.cute.interface import _flash_attn_bwd, _flash_attn_fwd

    with FakeTensorMode(), torch.no_grad():
        q, k, v = (
            torch.empty(BATCH, LENGTH, heads, HEAD_DIM, dtype=torch.bfloat16, device="cuda", requires_grad=True)
            for heads in (HEADS, KV_HEADS, KV_HEADS)
        )
        out, lse, *_ = _flash_attn_fwd(q, k, v, causal=True)
        _flash_attn_bwd(q, k, v, out, torch.empty_like(out), lse, causal=True)
    return "no GPU: fake tensors"


def main() -> int:
    """Train, and return the exit code."""
    dist.init_process_group("nccl" if HAS_GPU else "gloo")
    done = train(int(os.environ["LOCAL_RANK"])) if HAS_GPU else look_up()

    import fa4_precompile

    stats = fa4_precompile.stats()
    mine = dist.get_rank(), done, str(stats), bool(stats.resolved and not stats.missed and not stats.compiled)
    ranks: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(ranks, mine)
    dist.destroy_process_group()
    if mine[0] == 0:
        for rank, what, said, _ in ranks:
            sys.stdout.write(f"rank {rank}: {what}; {said}\n")
    return 0 if all(served for *_, served in ranks) else 1


if __name__ == "__main__":
    sys.exit(main())

"""The attention calls of the job, with fake tensors, which have shapes and no memory: so this needs no GPU.

FlashAttention looks its kernels up as for real ones. In strict mode one that is missing ends the process.
"""

import os

import torch
from torch._subclasses.fake_tensor import FakeTensorMode


def main() -> None:
    """Make a forward and a backward pass, causal and not."""
    # Where there is no GPU, FlashAttention is told which one is meant, a B200, before it is imported.
    os.environ.setdefault("FLASH_ATTENTION_ARCH", "sm_100")
    os.environ.setdefault("CUTE_DSL_ARCH", "sm_100a")
    os.environ.setdefault("FLASH_ATTENTION_NUM_SMS", "148")
    torch.version.cuda = "13.0"  # a CPU build of torch says nothing here

    from flash_attn.cute.interface import _flash_attn_bwd, _flash_attn_fwd

    import fa4_precompile

    with FakeTensorMode(), torch.no_grad():
        for causal in (False, True):
            q, k, v = (
                torch.empty(2, 4096, 8, 128, dtype=torch.bfloat16, device="cuda", requires_grad=True) for _ in range(3)
            )
            out, lse, *_ = _flash_attn_fwd(q, k, v, causal=causal)
            _flash_attn_bwd(q, k, v, out, torch.empty_like(out), lse, causal=causal)

    stats = fa4_precompile.stats()
    print(f"{stats.resolved} kernels found, {stats.compiled} compiled")


if __name__ == "__main__":
    main()

"""Block sizes for mask builders: `fa4_precompile.block_sizes`."""

from __future__ import annotations

import functools
from typing import Literal

from ..cache.target import Target, host_machine
from ..errors import UsageError
from ..providers.call import BlockSizes
from ..providers.installed import installed_toolchain
from ..providers.registry import DEFAULT, provider_of
from .compile.compilers import Compilers
from .plan import selector
from .spec.spec import target_book


@functools.cache
def block_sizes(
    head_dim: int | tuple[int, int],
    *,
    pass_: Literal["fwd", "bwd"] = "bwd",
    sparse: bool = True,
    arch: str = "sm_100a",
    dtype: str = "bf16",
    causal: bool = False,
    qheads_per_kvhead: int = 1,
    backend: str | None = None,
    cluster_size: int | None = None,
    module: str | None = None,
) -> BlockSizes:
    """Return the block sizes that the installed FlashAttention takes for a call, the smallest; without a GPU.

    It asks FlashAttention in a process of its own, which takes some ten seconds, and remembers the answer: ask once,
    not in each rank's step. `fa4-precompile plan --matrix` prints the same for all head dims.

    Args:
        head_dim: columns of Q and K and of V; a pair if they differ.
        pass_: `bwd` for a training step, `fwd` for a forward without gradients.
        sparse: with block sparsity; else the tiles that the dense kernels work on are returned.
        arch: whose GPUs; the first profile of `targets.yaml` that has it is asked about.
        dtype: as in a spec.
        causal: as in a spec.
        qheads_per_kvhead: as in a spec.
        backend: a demand on the kernel of the pass, as in a spec.
        cluster_size: another.
        module: the package to ask, or its folder, if it is not FlashAttention-4's own.

    Raises:
        UsageError: if FlashAttention does not take such calls, with its reason, or the arch is unknown.
        MachineError: if there is nothing installed to ask.
    """
    dims = (head_dim, head_dim) if isinstance(head_dim, int) else head_dim
    call = {
        "pass": pass_,
        "dtype": dtype,
        "head_dim": dims,
        "causal": causal,
        "qheads_per_kvhead": qheads_per_kvhead,
        "backend": backend,
        "cluster_size": cluster_size,
    }
    provider = DEFAULT if module is None else provider_of(module)
    with Compilers(provider, _target(arch), installed_toolchain(provider), jobs=1) as compilers:
        return provider.block_sizes(selector(compilers), provider.variant(call), sparse)


def _target(arch: str) -> Target:
    for profile in target_book().profiles.values():
        if profile.arch == arch and profile.sms:
            return Target(profile.name, arch, profile.sms, profile.cuda, host_machine())
    known = sorted({profile.arch for profile in target_book().profiles.values()})
    raise UsageError(f"no profile of `targets.yaml` has arch `{arch}`", f"allowed: {', '.join(known)}")

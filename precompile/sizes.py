"""Block sizes for mask builders: `fa4_precompile.block_sizes`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..cache.record import Selection
from ..cache.target import Target, host_machine
from ..cache.toolchain import installed_toolchain
from ..errors import UsageError
from .compilers import Compilers
from .matrix import BlockSize
from .matrix import block_sizes as smallest_blocks
from .plan import Selected, select
from .spec import target_book
from .variant import Pass, Variant


@dataclass(frozen=True)
class BlockSizes:
    """The block sizes that masks for a call must be built with.

    Attributes:
        forward: rows of Q and of KV that a block of the forward's mask (Q to K) covers.
        backward: the same of the backward's mask (K to Q); None for `pass_="fwd"`.
        job_env: variables that the job must set for such calls.
    """

    forward: BlockSize
    backward: BlockSize | None
    job_env: Mapping[str, str]


@functools.cache
def block_sizes(
    head_dim: int | tuple[int, int],
    *,
    pass_: Pass = "bwd",
    sparse: bool = True,
    arch: str = "sm_100a",
    dtype: str = "bf16",
    causal: bool = False,
    qheads_per_kvhead: int = 1,
    backend: str | None = None,
    cluster_size: int | None = None,
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

    Raises:
        UsageError: if FlashAttention does not take such calls, with its reason, or the arch is unknown.
        MachineError: if there is nothing installed to ask.
    """
    dims = (head_dim, head_dim) if isinstance(head_dim, int) else head_dim
    plain = Variant(pass_, dtype, *dims, causal=causal, qheads_per_kvhead=qheads_per_kvhead)
    asked = replace(plain, backend=backend, cluster_size=cluster_size)
    forward = replace(plain, pass_="fwd") if pass_ == "bwd" else asked
    variants = list(dict.fromkeys([asked, forward]))
    with Compilers(_target(arch), installed_toolchain(), 1, None) as compilers:
        dense = select(variants, compilers)
        if sparse:
            answers = smallest_blocks(dense, compilers)
        else:
            answers = {variant: _tile(answer) for variant, answer in dense.items()}
    environment: dict[str, str] = {}
    found = {}
    for variant in variants:
        size, answer = answers[variant]
        if isinstance(answer, str) or size is None:
            raise UsageError(
                f"FlashAttention does not take `{variant}`{' with block sparsity' if sparse else ''}: {answer}"
            )
        found[variant] = size
        environment.update(answer.environment)
    return BlockSizes(found[forward], found[asked] if pass_ == "bwd" else None, environment)


def _tile(answer: Selected | str) -> tuple[BlockSize | None, Selected | str]:
    return (None if isinstance(answer, str) else _block(answer.kernel.selection)), answer


def _block(selection: Selection) -> BlockSize:
    """Return the tile that goes over K and V, where a kernel has several (the dedicated head_dim 256 backward)."""
    return selection.tiles.get("dkdv") or selection.tiles["main"]


def _target(arch: str) -> Target:
    for profile in target_book().profiles.values():
        if profile.arch == arch and profile.sms:
            return Target(profile.name, arch, profile.sms, profile.cuda, host_machine())
    known = sorted({profile.arch for profile in target_book().profiles.values()})
    raise UsageError(f"no profile of `targets.yaml` has arch `{arch}`", f"allowed: {', '.join(known)}")

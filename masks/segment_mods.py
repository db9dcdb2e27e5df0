"""Segment masks as `mask_mod`s: `mask_1`, `mask_3`, ... `mask_31`, named by their number of bounds.

Key j is visible to a query if it lies in [0, f0) or [f1, f2) or [f3, f4) ..., where f are the query's bounds: an int32
aux tensor (batch, heads, n_func, seqlen_q). `masks.segments` makes the tensor and the block lists that go with it.

Imports the DSL and FlashAttention: only where a kernel is compiled or called.
"""

from __future__ import annotations

from typing import Any

import cutlass
import cutlass.cute as cute
from flash_attn.cute.utils import scalar_to_ssa

MOST_BOUNDS = 31


def make_mask(n_func: int) -> Any:
    """Return the `mask_mod` of segments with `n_func` bounds, an odd number.

    The number is what FlashAttention tells such masks apart by, so each has kernels of its own.
    """
    if n_func < 1 or n_func % 2 == 0:
        raise ValueError(f"a segment mask has an odd number of bounds, not {n_func}")

    # Its arguments are of the DSL, of whose types mypy knows nothing; and FlashAttention tells a mask by its text.
    @cute.jit
    def segment_mask(batch, head, q_idx, kv_idx, seqlen_info, aux_tensors):  # type: ignore[no-untyped-def]
        # The query's own bounds, cut out once: with an index of four for each of them the same code takes twice as
        # long to compile. The loop is unrolled, as one at run time took four times as long in the forward (0013).
        bounds = aux_tensors[0][batch[0], head[0], None, q_idx[0]]
        key = kv_idx[0]
        visible = key < bounds[0]
        for i in cutlass.range_constexpr(1, n_func, 2):
            visible = visible | ((key >= bounds[i]) & (key < bounds[i + 1]))
        return scalar_to_ssa(visible, cutlass.Boolean)

    return segment_mask


def __getattr__(name: str) -> Any:
    """Return `mask_1` to `mask_31`, each made once."""
    number = name.removeprefix("mask_")
    if name == number or not number.isdecimal() or int(number) > MOST_BOUNDS or int(number) % 2 == 0:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return globals().setdefault(name, make_mask(int(number)))

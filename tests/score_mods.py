"""Score modifications for tests of the axes `score_mod` and `score_mod_bwd`."""

from __future__ import annotations

import cutlass
import cutlass.cute as cute

LIMIT = 100


@cute.jit
def times_two(score, batch, head, q_idx, kv_idx, seqlen_info, aux_tensors, aux_scalars=None):  # type: ignore[no-untyped-def]
    """Double the scores."""
    return score * 2.0


@cute.jit
def times_two_bwd(grad, score, batch, head, q_idx, kv_idx, seqlen_info, aux_tensors, aux_scalars=None):  # type: ignore[no-untyped-def]
    """Double the gradient of the scores."""
    return grad * 2.0


@cute.jit
def endless(score, batch, head, q_idx, kv_idx, seqlen_info, aux_tensors, aux_scalars=None):  # type: ignore[no-untyped-def]
    """Keep the compiler tracing for ever."""
    for _ in cutlass.range_constexpr(10**15):
        score = score
    return score


@cute.jit
def all_visible(batch, head, q_idx, kv_idx, seqlen_info, aux_tensors, aux_scalars=None):  # type: ignore[no-untyped-def]
    """Mask nothing."""
    return kv_idx >= 0


@cute.jit
def below_the_limit(batch, head, q_idx, kv_idx, seqlen_info, aux_tensors):  # type: ignore[no-untyped-def]
    """Mask keys from a number on that is in no hash of this function."""
    return kv_idx < LIMIT


_HELD = iter(())


@cute.jit
def holding(batch, head, q_idx, kv_idx, seqlen_info, aux_tensors):  # type: ignore[no-untyped-def]
    """Mask nothing, and read what can't be recognized in another process."""
    return kv_idx >= len((_HELD,)) - 1

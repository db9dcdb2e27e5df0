"""The block sizes that masks must be built with: found by offering sizes, not by knowing FlashAttention's rules.

The smallest that it takes without a smaller tile.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ...cache.record import Selection
from ...errors import UsageError
from ..call import BlockSize, BlockSizes, Refused, Select, Selected, Unmet
from ..call import Variant as AnyVariant
from .variant import Sparse, Variant

# Sizes that are offered: rows of Q and of KV that a block covers. Every tile that a release of FA4 has had is a
# multiple of one of these, or one itself.
_Q_BLOCKS = (64, 80, 96, 128, 192, 256, 384, 512)
_KV_BLOCKS = (48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 240, 256)

_NUMBER = re.compile(r"\d+")

_Answer = Selected | Refused | Unmet
_Found = dict[Variant, tuple[BlockSize | None, _Answer]]


def block_sizes(select: Select, variant: Variant, sparse: bool) -> BlockSizes:
    """Return the block sizes for a call's masks, or if it is dense the tiles that its kernels work on.

    Raises `UsageError` if FlashAttention does not take the call, with its reason.
    """
    forward = variant
    if variant.pass_ == "bwd":
        forward = replace(variant, pass_="fwd", backend=None, cluster_size=None)
    variants = list(dict.fromkeys([variant, forward]))
    dense = select(variants)
    answers = smallest_blocks(variants, select, dense) if sparse else {one: _tile(dense[one]) for one in variants}
    environment: dict[str, str] = {}
    found = {}
    for one in variants:
        size, answer = answers[one]
        if not isinstance(answer, Selected) or size is None:
            reason = "" if isinstance(answer, Selected) else answer.reason
            raise UsageError(
                f"FlashAttention does not take `{one}`{' with block sparsity' if sparse else ''}: {reason}"
            )
        found[one] = size
        environment.update(answer.environment)
    return BlockSizes(found[forward], found[variant] if variant.pass_ == "bwd" else None, environment)


def smallest_blocks(variants: Sequence[Variant], select: Select, dense: Mapping[AnyVariant, _Answer]) -> _Found:
    """Return the smallest blocks that FlashAttention takes, with its largest tile, for variants with block sparsity.

    `dense` has its answers to the variants without. A block-sparse backward needs a forward first: it has the smallest
    blocks that are taken for one, whatever the demands on the backward.
    """
    # What is refused without block sparsity, too, is refused for another reason than the size of blocks.
    refused: _Found = {one: (None, answer) for one in variants if isinstance(answer := dense[one], Refused)}
    asked = [one for one in variants if one not in refused]
    forwards = {one: replace(one, pass_="fwd", cluster_size=None, backend=None) for one in asked if one.pass_ == "bwd"}
    forward_sizes = _best(list(dict.fromkeys(forwards.values())), select, {}) if forwards else {}
    known = {one: forward_sizes[forward][0] for one, forward in forwards.items()}
    return _best(asked, select, known) | refused


def _best(variants: Sequence[Variant], select: Select, forward_sizes: Mapping[Variant, BlockSize | None]) -> _Found:
    offers = {
        (variant, size): replace(variant, sparse=_sparse(size, forward_sizes.get(variant)))
        for variant in variants
        for size in _sizes()
    }
    answers = select(list(dict.fromkeys(offers.values())))
    found: _Found = {}
    for variant in variants:
        outcomes = [(size, answers[offers[variant, size]]) for size in _sizes()]
        taken = [(size, answer) for size, answer in outcomes if isinstance(answer, Selected)]
        # Where FA4 fits its tile to small blocks (SM90), those that keep the largest tile are meant.
        best = max(taken, key=lambda item: _area(item[1].kernel.selection), default=None)
        against = [answer for _, answer in outcomes if not isinstance(answer, Selected)]
        found[variant] = best or (None, most_telling(against))
    return found


def most_telling(answers: Sequence[Refused | Unmet]) -> Refused | Unmet:
    """Return the demand that is not met, else the reason that the fewest sizes meet, and of these the largest.

    Most sizes are refused for what they are, before FA4 comes to what it says against block sparsity itself.
    """
    kinds = [_NUMBER.sub("", answer.reason) for answer in answers]
    counts = Counter(kinds)
    rarest, _ = min(reversed(list(zip(answers, kinds, strict=True))), key=lambda item: counts[item[1]])
    return next((answer for answer in answers if isinstance(answer, Unmet)), rarest)


def _area(selection: Selection) -> int:
    return max(rows * columns for rows, columns in selection.tiles.values())


def _sparse(size: BlockSize, forward: BlockSize | None) -> Sparse:
    if forward is None:
        return Sparse(*size)
    return Sparse(*forward, bwd_q_block=size[0], bwd_kv_block=size[1])


def _sizes() -> list[BlockSize]:
    return sorted(itertools.product(_Q_BLOCKS, _KV_BLOCKS), key=lambda size: (size[0] * size[1], size[0]))


def _tile(answer: _Answer) -> tuple[BlockSize | None, _Answer]:
    """Return the tile that goes over K and V, where a kernel has several (the dedicated head_dim 256 backward)."""
    if not isinstance(answer, Selected):
        return None, answer
    tiles = answer.kernel.selection.tiles
    return tiles.get("dkdv") or tiles["main"], answer

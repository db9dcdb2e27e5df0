"""Masks as lists of blocks, one after another: those of a block row begin where its offset says."""

from __future__ import annotations

from typing import Any, NamedTuple


class BlockLists(NamedTuple):
    """What a kernel is given of a mask: how many blocks each block row works on, where they begin, and which."""

    count: Any
    offset: Any
    index: Any


class LinearBlocks(NamedTuple):
    """A mask: the blocks that it is in, those that it leaves whole, and how many rows of Q and KV a block has."""

    mask_block_cnt: Any
    mask_block_offset: Any
    mask_block_idx: Any
    full_block_cnt: Any = None
    full_block_offset: Any = None
    full_block_idx: Any = None
    block_size: tuple[int, int] | None = None

    @property
    def lists(self) -> BlockLists:
        """What a kernel is given of it."""
        return BlockLists(self.mask_block_cnt.view(-1), self.mask_block_offset, self.mask_block_idx)

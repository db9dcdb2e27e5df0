"""Masks as lists of blocks, one after another: those of a block row begin where its offset says."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch


class BlockLists(NamedTuple):
    """What a kernel is given of a mask: the blocks that each block row works on."""

    count: Any
    offset: Any
    index: Any


class LinearBlocks(NamedTuple):
    """A mask: the lists, torch's tensors, and how many rows of Q and K a block has."""

    count: Any
    offset: Any
    index: Any
    block_size: tuple[int, int]

    @property
    def lists(self) -> BlockLists:
        """The lists alone."""
        return BlockLists(self.count, self.offset, self.index)


def linear_blocks(rows: int, blocks: int, block_size: tuple[int, int]) -> LinearBlocks:
    """Return a mask of so many block rows, and blocks in all of them."""
    sizes = (rows, rows + 1, blocks)
    count, offset, index = (torch.empty(size, dtype=torch.int32, device="cuda") for size in sizes)
    return LinearBlocks(count, offset, index, block_size)

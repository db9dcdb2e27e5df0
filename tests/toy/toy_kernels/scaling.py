"""`scale`: rows times a number. One block for each tile."""

from __future__ import annotations

from typing import Any

import cutlass
import torch
from cuda.bindings.driver import CUstream  # type: ignore[import-untyped]
from cutlass import cute

from .rows import Key, Tile, chosen_key, compile_rows, is_launched

kernels: dict[Key, Any] = {}


def scale(x: torch.Tensor, factor: float) -> torch.Tensor:
    """Return `factor * x`. Raises `ValueError` for a tensor that no kernel takes."""
    key = chosen_key(x)
    y = torch.empty_like(x)
    if key not in kernels:
        kernels[key] = compile_rows(Scale(key[2]), key, 2, factor)
    if is_launched(x):
        kernels[key](x, y, factor)
    return y


class Scale:
    """The kernel of a tile."""

    def __init__(self, tile: Tile) -> None:
        self.tile = tile

    @cute.jit  # type: ignore[untyped-decorator]
    def __call__(self, x: cute.Tensor, y: cute.Tensor, factor: cutlass.Float32, stream: CUstream) -> None:
        threads, values = self.tile
        blocks = cute.ceil_div(cute.size(x), threads * values)
        self.multiply(x, y, factor).launch(grid=[blocks, 1, 1], block=[threads, 1, 1], stream=stream)

    @cute.kernel  # type: ignore[untyped-decorator]
    def multiply(self, x: cute.Tensor, y: cute.Tensor, factor: cutlass.Float32) -> None:
        threads, values = self.tile
        thread, _, _ = cute.arch.thread_idx()
        block, _, _ = cute.arch.block_idx()
        place = block * threads + thread
        row, column = place // (x.shape[1] // values), place % (x.shape[1] // values)
        if row < x.shape[0]:
            numbers = cute.local_tile(x, (1, values), (row, column)).load().to(cutlass.Float32)
            cute.local_tile(y, (1, values), (row, column)).store((numbers * factor).to(y.element_type))

"""What both kernels have in common: which calls they take, how rows are cut into tiles, how a kernel is compiled.

A tile is what one block works on at a time: threads, and neighbouring numbers that each of them handles at once.
"""

from __future__ import annotations

import os
from typing import Any

import cutlass
import torch
from cutlass import cute
from torch._subclasses.fake_tensor import FakeTensor

Tile = tuple[int, int]
Key = tuple[torch.dtype, int, Tile]

_TILE: Tile = (128, 4)
_WIDE_TILE: Tile = (128, 8)
_WIDE = "TOY_WIDE"

_DTYPES = {torch.float32: cutlass.Float32, torch.float16: cutlass.Float16, torch.bfloat16: cutlass.BFloat16}
_MOST_ALIGNED = 16  # bytes that one instruction loads
_TOO_MANY = 2**31


def chosen_key(x: torch.Tensor) -> Key:
    """Return what tells the kernels for a tensor apart. Raises `ValueError` for one that no kernel takes."""
    tile = _WIDE_TILE if os.environ.get(_WIDE) == "1" else _TILE
    if x.dtype not in _DTYPES:
        raise ValueError(f"no kernel takes {x.dtype}")
    if x.ndim != 2 or not x.is_contiguous():
        raise ValueError("the kernels take contiguous rows: a tensor of two dimensions")
    if x.numel() >= _TOO_MANY:
        raise ValueError(f"the kernels count to {_TOO_MANY - 1:,} numbers, and a tensor has {x.numel():,}")
    width, values = x.shape[1], tile[1]
    if width % values:
        raise ValueError(f"a width of {width} is not a multiple of the {values} values that a thread handles")
    return x.dtype, width, tile


def compile_rows(kernel: Any, key: Key, tensors: int, *numbers: float) -> Any:
    """Compile a kernel for tensors of any number of rows, from their description alone."""
    dtype, width, (_, values) = _DTYPES[key[0]], key[1], key[2]
    align = min(_MOST_ALIGNED, values * dtype.width // 8)
    rows = cute.sym_int()
    described = [
        cute.runtime.make_fake_tensor(dtype, (rows, width), (width, 1), assumed_align=align) for _ in range(tensors)
    ]
    stream = cute.runtime.make_fake_stream(use_tvm_ffi_env_stream=True)
    return cute.compile(kernel, *described, *map(cutlass.Float32, numbers), stream, options="--enable-tvm-ffi")


def is_launched(x: torch.Tensor) -> bool:
    """Return whether there is something to do: a tensor can be empty, and a fake one has no memory."""
    return x.numel() > 0 and not isinstance(x, FakeTensor)

"""The kernel: rows times a number, which a mask changes."""

from __future__ import annotations

from typing import Any

import cutlass
import torch
from cuda.bindings.driver import CUstream  # type: ignore[import-untyped]
from cutlass import cute
from torch._subclasses.fake_tensor import FakeTensor

from .block_sparsity import BlockLists

_DTYPES = {torch.float16: cutlass.Float16, torch.bfloat16: cutlass.BFloat16, torch.int32: cutlass.Int32}
_THREADS = 128


@cute.jit  # type: ignore[untyped-decorator]
def interval_mask(functions: cute.Tensor, row: cutlass.Int32) -> cutlass.Int32:
    """Return a number of the intervals of a row; how many there are is told by an attribute, as of forks' own masks."""
    found = cutlass.Int32(0)
    for number in cutlass.range_constexpr(interval_mask.n_func):
        found += functions[number, row]
    return found


interval_mask.n_func = 0


class Scaled:
    """`out = scale * x` for rows of Q's width, as wide as `out`; with a mask that has `n_func` functions, in blocks."""

    def __init__(self, width: int, out_width: int, mask_mod: Any = None, n_func: int = 0, block_rows: int = 1) -> None:
        self.width = width
        self.out_width = out_width
        self.mask_mod = mask_mod
        self.n_func = n_func
        self.block_rows = block_rows

    @cute.jit  # type: ignore[untyped-decorator]
    def __call__(
        self,
        x: cute.Tensor,
        out: cute.Tensor,
        scale: cutlass.Float32,
        blocks: Any,
        functions: Any,
        stream: CUstream,
    ) -> None:
        grid = [cute.ceil_div(x.shape[0], _THREADS), 1, 1]
        self.multiply(x, out, scale, blocks, functions).launch(grid=grid, block=[_THREADS, 1, 1], stream=stream)

    @cute.kernel  # type: ignore[untyped-decorator]
    def multiply(
        self,
        x: cute.Tensor,
        out: cute.Tensor,
        scale: cutlass.Float32,
        blocks: Any,
        functions: Any,
    ) -> None:
        thread, _, _ = cute.arch.thread_idx()
        block, _, _ = cute.arch.block_idx()
        row = block * _THREADS + thread
        if row < x.shape[0]:
            factor = scale
            if cutlass.const_expr(blocks is not None):
                factor = factor * blocks.count[row // self.block_rows]
                factor = factor + self.mask_mod(functions, row)
            for column in range(self.out_width):
                out[row, column] = (x[row, column].to(cutlass.Float32) * factor).to(out.element_type)


def described(kernel: Scaled, dtype: torch.dtype) -> tuple[Any, ...]:
    """Return what stands for a kernel's arguments, of any number of rows, when it is compiled."""
    x, out = (_tensor(dtype, cute.sym_int(), width) for width in (kernel.width, kernel.out_width))
    blocks, functions = None, None
    if kernel.n_func:
        blocks = BlockLists(*(_tensor(torch.int32, cute.sym_int()) for _ in range(3)))
        functions = _tensor(torch.int32, kernel.n_func, cute.sym_int())
    stream = cute.runtime.make_fake_stream(use_tvm_ffi_env_stream=True)
    return x, out, cutlass.Float32(1), blocks, functions, stream


def is_launched(x: torch.Tensor) -> bool:
    """Return whether there is something to do: a fake tensor has no memory."""
    return not isinstance(x, FakeTensor)


def _tensor(dtype: torch.dtype, *size: Any) -> Any:
    return cute.runtime.make_fake_compact_tensor(_DTYPES[dtype], size, stride_order=(1, 0)[-len(size) :])

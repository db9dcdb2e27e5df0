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


class Scaled:
    """`out = scale * x` for rows of a width; with a mask of `n_func` functions, whose blocks have `block_rows`."""

    def __init__(self, width: int, n_func: int = 0, block_rows: int = 1) -> None:
        self.width = width
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
                for number in cutlass.range_constexpr(self.n_func):
                    factor = factor + functions[number, row]
            for column in range(self.width):
                out[row, column] = (x[row, column].to(cutlass.Float32) * factor).to(out.element_type)


def described(kernel: Scaled, dtype: torch.dtype) -> tuple[Any, ...]:
    """Return what stands for a kernel's arguments, of any number of rows, when it is compiled."""
    x, out = (_tensor(dtype, cute.sym_int(), kernel.width) for _ in range(2))
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

"""FA4's calls with no GPU: what launches kernels takes a job's tensors of the CPU, and gives back others on it.

FA4 itself runs with stand-ins for them that have no memory and lie on a GPU that is not there, as when it is planned;
so it looks up what it would look up on one. Torch's autograd, and all that is not FA4's, sees tensors of the CPU.
"""

from __future__ import annotations

import functools
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from ...cache.target import Target
from ..dsl.device_facts import DeviceFacts
from ..packages import is_in
from ..slots import Slot
from .device import answer_for
from .fake import fake_mode
from .indexing import indexed

_NO_GPU = ("CUDA", "cuda", "NVIDIA")


def answer_as(target: Target) -> None:
    """Let torch answer as a job's would on a target, and say what a job asks of a GPU that is not there."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensor

    torch.version.cuda = f"{target.cuda}.0"
    answer_for(target, DeviceFacts(target), torch)
    FakeTensor.__getitem__ = indexed(torch.ops.aten)
    FakeTensor.contiguous = _contiguous
    if not isinstance(sys.excepthook, _SayingWhere):
        sys.excepthook = _SayingWhere(sys.excepthook)


@contextmanager
def faked_calls(module: ModuleType, slots: Sequence[Slot]) -> Iterator[None]:
    """Make the functions of a module that have a compile cache take tensors of the CPU, until the block ends."""
    owners = [slot.owner for slot in slots if inspect.isfunction(slot.owner)]
    real = [(name, value) for name, value in vars(module).items() if any(value is owner for owner in owners)]
    calls = _Calls()
    try:
        for name, function in real:
            setattr(module, name, calls.faked(function))
        yield
    finally:
        for name, function in real:
            setattr(module, name, function)


def _contiguous(tensor: Any, **_options: Any) -> Any:
    """Return a tensor as it is, or another that is contiguous: to copy one takes a GPU, even if it has no memory."""
    if tensor.is_contiguous():
        return tensor
    return tensor.new_empty(tuple(tensor.shape), requires_grad=tensor.requires_grad)


class _Calls:
    def __init__(self) -> None:
        self._mode: Any = None

    def faked(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)  # with the compile cache, which FA4 finds by the function's name
        def call(*arguments: Any, **options: Any) -> Any:
            import torch
            from torch.utils._python_dispatch import _get_current_dispatch_mode

            if _get_current_dispatch_mode() is not None:  # of a call further out, or of a job that is faked itself
                return function(*arguments, **options)
            if self._mode is None:
                self._mode = fake_mode()
            tensors = _Tensors(torch)
            with self._mode:
                result = function(*tensors.replaced(arguments), **tensors.replaced(options))
            return tensors.back(result)

        return call


class _Tensors:
    """The tensors of a call, and what stands for them. One that is given twice is one there, too."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self._device = torch.device("cpu")
        self._fakes: dict[int, tuple[Any, Any]] = {}
        self._reals: dict[int, Any] = {}

    def replaced(self, value: Any) -> Any:
        return _mapped(value, self._fake)

    def back(self, value: Any) -> Any:
        return _mapped(value, self._real)

    def _fake(self, value: Any) -> Any:
        if not isinstance(value, self._torch.Tensor) or value.ndim == 0:  # one number gets into a key as it is
            return value
        if id(value) not in self._fakes:
            self._device = value.device
            sizes = tuple(value.shape), tuple(value.stride())
            wants = value.requires_grad
            fake = self._torch.empty_strided(*sizes, dtype=value.dtype, device="cuda", requires_grad=wants)
            self._fakes[id(value)] = fake, value  # which stays, so that its id is no other's
            self._reals[id(fake)] = value
        return self._fakes[id(value)][0]

    def _real(self, value: Any) -> Any:
        if not isinstance(value, self._torch.Tensor):
            return value
        known = self._reals.get(id(value))
        return self._torch.zeros(tuple(value.shape), dtype=value.dtype, device=self._device) if known is None else known


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return a value with what is in it changed: in lists, tuples, mappings, and FA4's own tuples with names."""
    if isinstance(value, tuple):
        items = [_mapped(item, change) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if isinstance(value, list):
        return [_mapped(item, change) for item in value]
    if isinstance(value, dict):
        return {name: _mapped(item, change) for name, item in value.items()}
    return change(value)


_NOT_THE_JOBS = ("torch", "ctypes", "importlib", "_frozen_importlib", "_frozen_importlib_external")
_DRIVER = "libcuda.so"
_OF_A_GPU = "a GPU", "Make the tensors on the CPU there, or record on a GPU"
_OF_THE_DRIVER = (
    "the driver's library",
    "Put CUDA's stub of it, `lib64/stubs/libcuda.so`, into a folder on LD_LIBRARY_PATH as `libcuda.so.1`",
)


class _SayingWhere:
    """What Python calls for an error that ends a job: names the call that asked for a GPU."""

    def __init__(self, real: Callable[..., Any]) -> None:
        self._real = real

    def __call__(self, kind: type[BaseException], error: BaseException, trace: Any) -> None:
        self._real(kind, error, trace)
        if any(word in str(error) for word in _NO_GPU) and (place := _place(trace)) is not None:
            what, mend = _OF_THE_DRIVER if _DRIVER in str(error) else _OF_A_GPU
            sys.stderr.write(
                f"fa4-precompile: {place} asks for {what}, and a recording with `--fake` has none: only "
                f"FlashAttention's calls are made without. {mend}\n"
            )


def _place(trace: Any) -> str | None:
    """Return where the job's own code was: the innermost line that is not torch's, or of what loads libraries."""
    found = None
    for frame, line in traceback.walk_tb(trace):
        module = str(frame.f_globals.get("__name__", ""))
        if not any(is_in(module, other) for other in _NOT_THE_JOBS):
            found = f"`{Path(frame.f_code.co_filename).name}:{line}` (`{frame.f_code.co_name}`)"
    return found

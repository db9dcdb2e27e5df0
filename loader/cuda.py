"""What CUDA does in this process, asked of the driver without starting it, and how to keep out of captures' way.

`cuInit` in a process that forks afterwards breaks CUDA in the child. So nothing here calls it, and nothing here makes a
context: until the process has done so itself, the answer is that there is none. Imports no torch.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .kernel import Kernel

_LOG = logging.getLogger("fa4_precompile")

_RELAXED = 2  # CUstreamCaptureMode in cuda.h


class Cuda:
    """The driver of this machine. Raises `OSError` where there is none."""

    def __init__(self) -> None:
        self._driver = ctypes.CDLL("libcuda.so.1")

    def is_started(self) -> bool:
        """Return whether this process has initialized CUDA."""
        count = ctypes.c_int()
        return self._answers("cuDeviceGetCount", ctypes.byref(count))  # else CUDA_ERROR_NOT_INITIALIZED, and no more

    def contexts(self) -> list[int]:
        """Return the numbers of the GPUs that have a primary context, which is the one that torch and CUDA use."""
        count = ctypes.c_int()
        if not self._answers("cuDeviceGetCount", ctypes.byref(count)):
            return []
        return [device for device in range(count.value) if self._is_active(device)]

    @contextmanager
    def joined(self, device: int) -> Iterator[bool]:
        """Have this thread work in the primary context that a GPU has; yields whether it can.

        A thread that has none would make one, of the first GPU.
        """
        context = ctypes.c_void_p()
        if not self._is_active(device) or not self._answers("cuDevicePrimaryCtxRetain", ctypes.byref(context), device):
            yield False
            return
        try:
            yield self._answers("cuCtxSetCurrent", context)
        finally:
            self._answers("cuCtxSetCurrent", None)
            self._answers("cuDevicePrimaryCtxRelease_v2", device)

    @contextmanager
    def outside_captures(self) -> Iterator[bool]:
        """Have what this thread does be part of no capture; yields whether it is so.

        CUDA takes it else for what a graph can't hold, as loading a cubin is: it refuses that, and spoils the graph,
        also one that another thread captures.
        """
        mode = ctypes.c_int(_RELAXED)
        is_outside = self._answers("cuThreadExchangeStreamCaptureMode", ctypes.byref(mode))
        try:
            yield is_outside
        finally:
            if is_outside:
                self._answers("cuThreadExchangeStreamCaptureMode", ctypes.byref(mode))  # as it was

    def _is_active(self, device: int) -> bool:
        flags, active = ctypes.c_uint(), ctypes.c_int()
        answered = self._answers("cuDevicePrimaryCtxGetState", device, ctypes.byref(flags), ctypes.byref(active))
        return answered and active.value == 1

    def _answers(self, function: str, *arguments: object) -> bool:
        """Call a function of the driver, and return whether it did what it was asked to."""
        called = getattr(self._driver, function, None)
        return called is not None and called(*arguments) == 0


def load_if_captured(kernel: Kernel) -> None:
    """Load the cubin of a kernel that was just looked up, if its first call is to be part of a graph."""
    torch: Any = sys.modules.get("torch")
    try:
        if torch is None or not torch.cuda.is_initialized() or not torch.cuda.is_current_stream_capturing():
            return
        with Cuda().outside_captures() as is_outside:
            if is_outside:
                kernel.initialize()
    except Exception:  # its call does it again, and says what is wrong
        _LOG.debug("kernel %s is not on the GPU", kernel.reference.id, exc_info=True)

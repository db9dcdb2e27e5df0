"""The DSL, imported and pinned to a target. In the fork server only."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from ...cache.target import Target
from .compiler import CUTE
from .device_facts import DRIVER_CHECKER, DeviceFacts, answer_driver_check


class Dsl:
    """The DSL of this process, which answers questions about the device from a target. Imports it.

    Attributes:
        cute: the module whose `compile` makes every kernel.
        cuda: CUDA major of the DSL's libraries that were loaded.
        facts: the answers to the device's questions, and who asked.
    """

    def __init__(self, target: Target) -> None:
        cutlass: Any = importlib.import_module("cutlass")
        utils: Any = importlib.import_module("cutlass.utils")
        self.facts = DeviceFacts(target)
        self.facts.install(utils.HardwareInfo)
        answer_driver_check(sys.modules.get(DRIVER_CHECKER))
        self.cute: Any = importlib.import_module(CUTE)
        self.cuda: int = cutlass.CUDA_VERSION.major

    def compile_empty(self) -> Any:
        """Compile a kernel that does nothing."""
        cute = self.cute

        @cute.kernel  # type: ignore[untyped-decorator]
        def empty() -> None:
            pass

        @cute.jit  # type: ignore[untyped-decorator]
        def launch() -> None:
            empty().launch(grid=[1, 1, 1], block=[1, 1, 1])

        return cute.compile(launch, options="--enable-tvm-ffi")

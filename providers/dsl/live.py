"""The DSL, imported and pinned to a target. In the fork server only."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping
from typing import Any

from ...cache.target import Target
from .compiler import CODE_MAKER, CUTE
from .device_facts import DRIVER_CHECKER, DeviceFacts, answer_driver_check
from .installation import codegen_variables
from .lean import MODULE as OPERATIONS
from .lean import Lean
from .rewriting import Rewriting

_NO_ENGINE = "no_jit_engine"


class Dsl:
    """The DSL of this process, which answers questions about the device from a target. Imports it.

    Attributes:
        cute: the module whose `compile` makes every kernel.
        cuda: CUDA major of the DSL's libraries that were loaded.
        facts: the answers to the device's questions, and who asked.
        rewriting: the functions that the DSL has rewritten.
        to_export: options of `cute.compile` for a function that is exported and not called: it is made ready for
            export only, and not compiled once more for this process.
        lean: how tracing goes faster.
    """

    def __init__(self, target: Target) -> None:
        cutlass: Any = importlib.import_module("cutlass")
        utils: Any = importlib.import_module("cutlass.utils")
        self.facts = DeviceFacts(target)
        self.facts.install(utils.HardwareInfo)
        answer_driver_check(sys.modules.get(DRIVER_CHECKER))
        self.cute: Any = importlib.import_module(CUTE)
        self.cuda: int = cutlass.CUDA_VERSION.major
        module, name, method = CODE_MAKER
        maker = getattr(importlib.import_module(module), name)
        self.rewriting = Rewriting(maker)
        # A variable that changes what the DSL generates can ask for any of its modes.
        self.lean = Lean(None if codegen_variables() else sys.modules.get(OPERATIONS), maker)
        known = _NO_ENGINE in inspect.signature(getattr(maker, method)).parameters
        self.to_export: Mapping[str, bool] = {_NO_ENGINE: True} if known else {}

    def compile_empty(self) -> Any:
        """Compile a kernel that does nothing."""
        cute = self.cute

        @cute.kernel  # type: ignore[untyped-decorator]
        def empty() -> None:
            pass

        @cute.jit  # type: ignore[untyped-decorator]
        def launch() -> None:
            empty().launch(grid=[1, 1, 1], block=[1, 1, 1])

        return cute.compile(launch, options="--enable-tvm-ffi", **self.to_export)

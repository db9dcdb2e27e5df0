"""Answering what a package asks torch about the device, from the target. In the fork server only.

Only what packages of FA4's lineage ask. A CPU build of torch lacks some of it, and any build answers for the GPU that
is there, which need not be the target.
"""

from __future__ import annotations

import re
import traceback
from typing import Any

from ...cache.target import Target
from ...errors import Fa4PrecompileError
from ..dsl.device_facts import DeviceFacts
from ..packages import is_in

_COMPILER = "cutlass.base_dsl"
_RAW_STREAM = "_cuda_getCurrentRawStream"


def answer_for(target: Target, facts: DeviceFacts, torch: Any) -> None:
    """Let torch say what a job's would on the target: before the package is imported, which keeps some answers."""
    capability = capability_of(target)
    properties = DeviceProperties(target, facts)
    answers: dict[str, Any] = {
        "get_device_capability": lambda device=None: capability,
        "get_device_properties": lambda device=None: properties,
        "current_device": lambda: 0,
        "is_current_stream_capturing": lambda: False,
    }
    for name, answer in answers.items():
        setattr(torch.cuda, name, answer)
    if not hasattr(torch._C, _RAW_STREAM):
        setattr(torch._C, _RAW_STREAM, lambda device=0: 0)


def capability_of(target: Target) -> tuple[int, int]:
    """Return the compute capability of a target: (10, 3) of `sm_103a`."""
    found = re.match(r"sm_(\d+)(\d)", target.arch)
    if found is None:
        raise Fa4PrecompileError(f"target {target.name} has an arch without a compute capability: {target.arch}")
    return int(found[1]), int(found[2])


class DeviceProperties:
    """What stands for `torch.cuda.get_device_properties(...)`; what the target does not say raises."""

    def __init__(self, target: Target, facts: DeviceFacts) -> None:
        self.major, self.minor = capability_of(target)
        self._target = target
        self._facts = facts

    @property
    def multi_processor_count(self) -> int:
        """The number of SMs. Asked by a kernel that is traced, it is one of the kernel's facts.

        What chooses a kernel is in its key; what the kernel is made of must be in its record.
        """
        return self._facts.sms() if _is_tracing() else self._target.sms

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise Fa4PrecompileError(f"the package asks torch for the device's `{name}`, which no target says")


def _is_tracing() -> bool:
    """Return whether the DSL is compiling, further out in this thread."""
    modules = (frame.f_globals.get("__name__") for frame, _ in traceback.walk_stack(None))
    return any(is_in(str(module), _COMPILER) for module in modules)

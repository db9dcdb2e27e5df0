"""The device that a job's kernels are for. No torch, no CUDA context."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from ..errors import MachineError
from ..providers.dsl.driver import Device, detect_driver
from ..providers.dsl.installation import ARCH_VARIABLE


def job_device(sms_variable: str, environment: Mapping[str, str] = os.environ) -> Device:
    """Return the device that the DSL would compile for in this process.

    That is the GPU; and where `CUTE_DSL_ARCH` names another arch, the DSL follows it. Without a GPU (FakeTensorMode on
    a CPU machine) it needs the variable, and the SM count comes from `sms_variable`, the provider's; 0 if nobody says
    it.

    Raises `MachineError` if there is no device, or if the GPUs differ: kernels are remembered by key, so one for the
    first GPU would be launched on the second.
    """
    driver = detect_driver()
    devices = driver.devices if driver else ()
    kinds = sorted({(device.arch, device.sms) for device in devices})
    if len(kinds) > 1:
        found = ", ".join(f"{arch} with {sms} SMs" for arch, sms in kinds)
        raise MachineError(f"the GPUs of this process differ: {found}", "show it one kind with `CUDA_VISIBLE_DEVICES`")
    arch = environment.get(ARCH_VARIABLE, "")
    if devices:
        return replace(devices[0], arch=arch) if arch else devices[0]
    if not arch:
        raise MachineError("no NVIDIA GPU is visible here, and `CUTE_DSL_ARCH` names no arch", "")
    sms = environment.get(sms_variable, "")
    return Device(0, "none", arch, int(sms) if sms.isdecimal() else 0, present=False)

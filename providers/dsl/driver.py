"""The GPUs of this machine, asked of the driver. No torch, no CUDA context."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

_COMPUTE_CAPABILITY_MAJOR = 75  # CUdevice_attribute in cuda.h
_COMPUTE_CAPABILITY_MINOR = 76
_MULTIPROCESSOR_COUNT = 16
_RELEASE = "/sys/module/nvidia/version"


@dataclass(frozen=True)
class Device:
    """A GPU as a CUDA program sees it: `sms` is that of a MIG slice where there is one.

    `arch` is the compile target whose kernels use all that the GPU has, for example `sm_90a`. `present` is False for
    one that the environment speaks of, on a machine that has none.
    """

    index: int
    name: str
    arch: str
    sms: int
    present: bool = True


@dataclass(frozen=True)
class Driver:
    """The NVIDIA driver: the CUDA version that it speaks, as `13.0`, and its GPUs."""

    cuda: str
    devices: tuple[Device, ...]


def detect_driver() -> Driver | None:
    """Ask the driver for its GPUs; None where there is no driver."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
        ask_version = library.cuDriverGetVersion
    except (OSError, AttributeError):
        return None
    version = ctypes.c_int()
    ask_version(ctypes.byref(version))
    cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    count = ctypes.c_int()
    if library.cuInit(0) != 0 or library.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return Driver(cuda, ())
    return Driver(cuda, tuple(_device(library, index) for index in range(count.value)))


def _device(library: ctypes.CDLL, index: int) -> Device:
    handle = ctypes.c_int()
    name = ctypes.create_string_buffer(128)
    library.cuDeviceGet(ctypes.byref(handle), index)
    library.cuDeviceGetName(name, len(name), handle)

    def attribute(which: int) -> int:
        value = ctypes.c_int()
        library.cuDeviceGetAttribute(ctypes.byref(value), which, handle)
        return value.value

    major, minor = attribute(_COMPUTE_CAPABILITY_MAJOR), attribute(_COMPUTE_CAPABILITY_MINOR)
    # From 9.0 on, the features that FA4 needs (wgmma, tcgen05) are in the arch-specific targets.
    suffix = "a" if major >= 9 else ""
    return Device(
        index, name.value.decode(errors="replace"), f"sm_{major}{minor}{suffix}", attribute(_MULTIPROCESSOR_COUNT)
    )


def driver_cuda_major() -> int | None:
    """Return the CUDA major that the driver knows; None where there is no driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        version = ctypes.c_int()
        return version.value // 1000 if driver.cuDriverGetVersion(ctypes.byref(version)) == 0 else None
    except (OSError, AttributeError):
        return None


def driver_release() -> str:
    """Return the driver's release, as `580.95.05`; nothing where that can't be read."""
    try:
        with open(_RELEASE, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""

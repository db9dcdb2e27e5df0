"""What this machine has for building and loading kernels, what is wrong, and how to mend it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ..cache.store import Root
from ..errors import CacheError, Fa4PrecompileError
from ..products.link import find_linker
from ..products.load import open_run_time
from ..providers.dsl.driver import detect_driver
from ..providers.dsl.installation import dsl_cuda_flavors
from ..providers.installed import installed_toolchain
from ..providers.packages import BUILD_HINT, package_folder
from ..providers.registry import DEFAULT
from .inputs import named_root
from .output import conclude, print_json, print_lines

T = TypeVar("T")


@dataclass(frozen=True)
class Item:
    """One thing that was looked at. `mend` says what to do, or what follows from it."""

    what: str
    ok: bool
    found: str
    mend: str = ""


def doctor(cache: Path | None, as_json: bool) -> None:
    """Print what was looked at; end with findings if something is wrong."""
    items = examine(named_root(cache))
    if as_json:
        print_json([vars(item) for item in items])
    else:
        print_lines(line for item in items for line in _lines(item))
    conclude(not all(item.ok for item in items))


def _lines(item: Item) -> Iterator[str]:
    yield f"{'ok  ' if item.ok else 'FAIL'} {item.what}: {item.found}"
    if item.mend:
        yield f"     {item.mend}"


def examine(root: Root) -> list[Item]:
    """Look at everything that a build or a load needs. Imports neither torch nor the DSL; writes nothing."""
    return [*_toolchain(), *_imports(), *_linker(), *_run_time(), *_cache(root), *_device()]


def _toolchain() -> Iterator[Item]:
    toolchain = _attempt(lambda: installed_toolchain(DEFAULT))
    if isinstance(toolchain, Fa4PrecompileError):
        yield Item("toolchain", False, str(toolchain), toolchain.hint)
        return
    yield Item("provider", True, f"{toolchain.provider} {toolchain.provider_version}")
    versions = sorted({*toolchain.dsl.values()})
    flavors = ", ".join(f"CUDA {flavor}" for flavor in dsl_cuda_flavors())
    yield Item(
        "DSL versions",
        len(versions) == 1,
        ", ".join(f"{name} {version}" for name, version in toolchain.dsl.items()),
        "" if len(versions) == 1 else "its distributions must have one version: install nvidia-cutlass-dsl again",
    )
    thor = (
        ""
        if 13 in dsl_cuda_flavors()
        else "sm_110a (thor) needs the CUDA 13 ones: `pip install 'fa4-precompile[build,cu13]'`"
    )
    yield Item("DSL libraries", True, f"{flavors}; CUDA {toolchain.dsl_cuda} in use", thor)
    yield Item("TVM-FFI", True, toolchain.tvm_ffi)
    if toolchain.environment:
        names = ", ".join(f"{name}={value}" for name, value in toolchain.environment.items())
        yield Item("code generation", True, names, "these variables change the kernels; they are in the toolchain's id")


def _imports() -> Iterator[Item]:
    for package in ("torch", "triton", "numpy", "elftools"):
        there = package_folder(package) is not None
        yield Item(package, there, "installed" if there else "not installed", "" if there else BUILD_HINT)


def _linker() -> Iterator[Item]:
    linker = _attempt(find_linker)
    if isinstance(linker, Fa4PrecompileError):
        yield Item("linker", False, str(linker), linker.hint)
        return
    done = subprocess.run([*linker, "--version"], capture_output=True, text=True, check=False)
    yield Item("linker", done.returncode == 0, (done.stdout or done.stderr).splitlines()[0])


def _run_time() -> Iterator[Item]:
    error = _attempt(open_run_time)
    if isinstance(error, Fa4PrecompileError):
        yield Item("run-time libraries", False, str(error), "`pip install apache-tvm-ffi nvidia-cutlass-dsl`")
    else:
        yield Item("run-time libraries", True, "libtvm_ffi.so and libcute_dsl_runtime.so load")


def _cache(root: Root) -> Iterator[Item]:
    if not root.path.exists():
        yield Item("cache", True, f"`{root.path}` does not exist", "`fa4-precompile build` makes it")
        return
    error = _attempt(root.require_layout)
    if isinstance(error, CacheError) and root.path.is_dir() and not any(root.path.iterdir()):
        yield Item("cache", True, f"`{root.path}` is empty", "`fa4-precompile build` makes a cache of it")
    elif isinstance(error, Fa4PrecompileError):
        yield Item("cache", False, str(error), error.hint)
    else:
        yield Item("cache", True, f"`{root.path}` is a cache, and nobody else can write it")


def _device() -> Iterator[Item]:
    driver = detect_driver()
    if driver is None:
        yield Item("GPU", True, "no NVIDIA driver", "kernels are built here and loaded elsewhere")
    elif not driver.devices:
        yield Item("GPU", True, f"driver for CUDA {driver.cuda}, no GPU visible")
    else:
        names = ", ".join(f"{device.name} ({device.arch}, {device.sms} SMs)" for device in driver.devices)
        yield Item("GPU", True, f"{names}; driver for CUDA {driver.cuda}")


def _attempt(function: Callable[[], T]) -> T | Fa4PrecompileError:
    try:
        return function()
    except Fa4PrecompileError as error:
        return error

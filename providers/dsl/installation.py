"""The installed DSL: its distributions, its libraries, and the variables that change what it generates.

Read without importing any of it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from ...cache.target import Target
from ...errors import MachineError
from ..packages import BUILD_HINT, is_installed, package_folder, versions
from .driver import driver_cuda_major

_PTXAS = "CUTE_DSL_PTXAS_PATH"
CODEGEN_ENVIRONMENT = (
    "CUTE_DSL_AUTO_M2S",
    "CUTE_DSL_COMPILER_BACKEND",
    "CUTE_DSL_COMPILER_OPT",
    "CUTE_DSL_DEBUG",
    "CUTE_DSL_DRYRUN",
    "CUTE_DSL_ENABLE_ASSERTIONS",
    "CUTE_DSL_ENABLE_PYIR",
    "CUTE_DSL_LINEINFO",
    "CUTE_DSL_LOC_TRACEBACKS",
    _PTXAS,
    "CUTE_DSL_TOLERATE_M2M",
    "CUTE_DSL_USE_EXTENSION_COMPILER",
    "CUTE_DSL_WARNINGS_AS_ERRORS",
)
"""Environment variables that change what the DSL generates: those that it marks `affects_compile` itself (a test
compares), less the arch, which is in the kernel id, TVM-FFI, which is always on, and paths; and the one that makes FA4
and quack assemble with another ptxas, which is recorded by that program's digest."""

DSL = "nvidia-cutlass-dsl"
IMPORTED_AS = "cutlass"
RUNTIME_LIBRARY = "libcute_dsl_runtime.so"

ARCH_VARIABLE = "CUTE_DSL_ARCH"
"""Names the arch that the DSL compiles for, in a build and in a job."""


def pinned_environment(target: Target) -> Mapping[str, str | None]:
    """Return the variables that pin the DSL to a target before it is imported.

    None unsets one, and `*` stands for any ending: log levels, dumps of files, other caches. What the builder's
    environment is meant to say to the DSL is on the list of code-generation variables.
    """
    return {
        "CUTE_DSL_*": None,
        "CUDA_VISIBLE_DEVICES": "",
        ARCH_VARIABLE: target.arch,
        "CUTE_DSL_DISABLE_FILE_CACHING": "1",  # its cache below /tmp is not verified
    }


def dsl_distributions() -> dict[str, str]:
    """Return the version of every installed distribution of the DSL by its name; nothing where there is none."""
    return versions(DSL)


def dsl_parts() -> Mapping[str, bool]:
    """Return what the DSL consists of, in words, and whether it is installed.

    Its run-time library alone is no part: it compiles nothing, and jobs need it whose cache has none.
    """
    compiler = {
        f"the distribution `{DSL}`": is_installed(DSL),
        f"the package `{IMPORTED_AS}`": _has_code(package_folder(IMPORTED_AS)),
    }
    return {**compiler, f"the library `{RUNTIME_LIBRARY}`": any(compiler.values()) and bool(_runtime_libraries())}


def _has_code(folder: Path | None) -> bool:
    return folder is not None and (folder / "__init__.py").is_file()  # a checkout of CUTLASS is called so, too


def codegen_variables() -> dict[str, str]:
    """Return the variables of `CODEGEN_ENVIRONMENT` that are set in this process."""
    return {name: os.environ[name] for name in CODEGEN_ENVIRONMENT if os.environ.get(name)}


def codegen_environment() -> dict[str, str]:
    """Return the same for a toolchain: a program by what it does, not by where it is. Raises `MachineError`."""
    variables = codegen_variables()
    if path := variables.get(_PTXAS):
        try:  # what it does matters, not where it is
            variables[_PTXAS] = f"sha256:{hashlib.sha256(Path(path).read_bytes()).hexdigest()}"
        except OSError as error:
            raise MachineError(f"`{_PTXAS}={path}` can't be read: {error.strerror}", f"unset {_PTXAS}") from None
    return variables


def dsl_cuda_flavors() -> list[int]:
    """Return the CUDA majors of the DSL's installed libraries, newest first."""
    return sorted(_runtime_libraries(), reverse=True)


def _runtime_libraries() -> dict[int, Path]:
    folder = package_folder("nvidia_cutlass_dsl")
    if folder is None:
        return {}
    found = {
        int(path.parts[-3][2:]): path
        for path in folder.glob(f"cu*/lib/{RUNTIME_LIBRARY}")
        if path.parts[-3][2:].isdigit()
    }
    plain = folder / "lib" / RUNTIME_LIBRARY
    if not found and plain.is_file():  # up to 4.6 there was one place for either
        cuda_13 = any(name.endswith("cu13") for name in dsl_distributions())
        found = {13 if cuda_13 else 12: plain}
    return found


def dsl_cuda_in_use() -> int:
    """Return the CUDA major of the libraries that the DSL will load: the newest that the driver, if any, knows.

    The builder compares this with what the DSL says of itself once it is imported.
    """
    driver = driver_cuda_major()
    for flavor in dsl_cuda_flavors():
        if driver is None or flavor <= driver:
            return flavor
    raise MachineError(
        "the DSL's libraries for CUDA are not installed, or are newer than this machine's driver", BUILD_HINT
    )


def runtime_library() -> Path | None:
    """Return the DSL's run-time library that kernels need, or None if it is not installed."""
    libraries = _runtime_libraries()
    return libraries[dsl_cuda_in_use()] if libraries else None


def require_runtime_library() -> Path:
    """Return the DSL's run-time library. Raises `MachineError` if it is not installed."""
    path = runtime_library()
    if path is None:
        raise MachineError(f"the DSL's `{RUNTIME_LIBRARY}` is not installed", BUILD_HINT)
    return path

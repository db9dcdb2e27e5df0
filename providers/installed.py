"""A provider's toolchain and run time as they are installed here. Imports none of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..cache.compared import RunTime
from ..cache.target import host_machine
from ..cache.toolchain import Toolchain
from ..errors import MachineError
from .dsl.cross import host_compiler
from .dsl.driver import driver_cuda_major
from .dsl.installation import DSL, codegen_environment, codegen_variables, dsl_cuda_in_use, dsl_distributions
from .packages import BUILD_HINT, package_folder, source_digest, version

if TYPE_CHECKING:
    from .protocol import Provider

_TVM_FFI = "apache-tvm-ffi"

_UNREADABLE = "not to be read"
"""In the place of what is there and can't be told: no toolchain has it, so none is taken for the one that is here."""


def installed_toolchain(provider: Provider, machine: str = "") -> Toolchain:
    """Read the toolchain that is installed here for hosts of a kind, these if none is named; takes some 30 ms.

    Raises `MachineError` if a part is missing, with the command that installs it.
    """
    dsl = dsl_distributions()
    if DSL not in dsl:
        raise MachineError(f"`{DSL}` is not installed, so nothing can be compiled here", BUILD_HINT)
    return Toolchain(
        provider=provider.name,
        provider_version=provider.version(),
        provider_source=source_digest(provider.package, provider.beside, provider.folder),
        traced_libraries={library: source_digest(library) for library in provider.traced},
        dsl=dsl,
        dsl_cuda=dsl_cuda_in_use(),
        tvm_ffi=version(_TVM_FFI),
        machine=machine or host_machine(),
        host_compiler=host_compiler(machine or host_machine()),
        environment=codegen_environment(),
    )


def installed_run_time(provider: Provider) -> RunTime:
    """Read what is installed here for a job, which takes some 25 ms.

    Raises `MachineError` if a part is missing that every job needs. What could compile need not be there.
    """
    dsl = _dsl()
    return RunTime(
        provider=provider.name,
        provider_source=source_digest(provider.package, provider.beside, provider.folder),
        tvm_ffi=version(_TVM_FFI),
        machine=host_machine(),
        environment=_environment(),
        traced_libraries=_traced(provider),
        dsl=dsl,
        dsl_cuda=_dsl_cuda() if dsl else None,
        driver_cuda=driver_cuda_major(),
    )


def _environment() -> Mapping[str, str]:
    try:
        return codegen_environment()
    except MachineError:  # of a program, which a toolchain has by its digest
        return codegen_variables()


def _traced(provider: Provider) -> Mapping[str, str] | None:
    """Return the digests of the libraries that are traced into kernels; None if one of them is not installed."""
    if not all(map(package_folder, provider.traced)):
        return None
    try:
        return {library: source_digest(library) for library in provider.traced}
    except MachineError:
        return dict.fromkeys(provider.traced, _UNREADABLE)


def _dsl() -> Mapping[str, str] | None:
    try:
        return dsl_distributions() or None
    except MachineError:
        return {DSL: _UNREADABLE}


def _dsl_cuda() -> int | None:
    try:
        return dsl_cuda_in_use()
    except MachineError:  # it has no libraries that could compile here
        return None

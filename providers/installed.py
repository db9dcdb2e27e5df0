"""A provider's toolchain and run time as they are installed here. Imports none of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..cache.target import host_machine
from ..cache.toolchain import RunTime, Toolchain, abi
from ..errors import MachineError
from .dsl.installation import DSL, codegen_environment, dsl_cuda_in_use, dsl_distributions
from .packages import BUILD_HINT, source_digest, version

if TYPE_CHECKING:
    from .protocol import Provider

_TVM_FFI = "apache-tvm-ffi"


def installed_toolchain(provider: Provider) -> Toolchain:
    """Read the toolchain that is installed here, which takes some 30 ms.

    Raises `MachineError` if a part is missing, with the command that installs it.
    """
    dsl = dsl_distributions()
    if DSL not in dsl:
        raise MachineError(f"`{DSL}` is not installed, so nothing can be compiled here", BUILD_HINT)
    return Toolchain(
        provider=provider.name,
        provider_version=provider.version(),
        provider_source=source_digest(provider.package, provider.beside),
        traced_libraries={library: source_digest(library) for library in provider.traced},
        dsl=dsl,
        dsl_cuda=dsl_cuda_in_use(),
        tvm_ffi=version(_TVM_FFI),
        machine=host_machine(),
        environment=codegen_environment(),
    )


def installed_run_time(provider: Provider) -> RunTime:
    """Read what is installed here for a job, which takes some 10 ms. Raises `MachineError` if a part is missing."""
    return RunTime(source_digest(provider.package, provider.beside), abi(version(_TVM_FFI)), host_machine())

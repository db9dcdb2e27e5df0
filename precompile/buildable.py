"""Whether a machine can build for a target at all."""

from __future__ import annotations

from ..cache.target import Target, host_machine
from ..errors import MachineError
from ..products.link import find_linker


def require_buildable(target: Target) -> None:
    """Raise `MachineError` for what would stop every kernel, before minutes are spent."""
    find_linker()
    if target.machine != host_machine():
        raise MachineError(
            f"target {target.name} has {target.machine} hosts, and this machine is {host_machine()}: a kernel holds "
            "host code, which the DSL can't cross-compile with TVM-FFI",
            f"build on an {target.machine} machine; it needs no GPU",
        )

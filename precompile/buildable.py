"""Whether a machine can build for a target at all."""

from __future__ import annotations

from ..cache.target import Target, host_machine
from ..errors import MachineError
from ..products.link import find_linker
from ..providers.dsl.cross import cross_compiler


def require_buildable(target: Target) -> None:
    """Raise `MachineError` for what would stop every kernel, before minutes are spent."""
    if target.machine == host_machine():
        find_linker()
    else:
        cross_compiler(target.machine)


def require_native(target: Target, what: str) -> None:
    """Raise `MachineError` for a target with hosts of another kind than this machine; `what` says why."""
    if target.machine != host_machine():
        raise MachineError(
            f"target {target.name} has {target.machine} hosts, and this machine is {host_machine()}: {what}",
            f"do it on an {target.machine} machine; it needs no GPU",
        )

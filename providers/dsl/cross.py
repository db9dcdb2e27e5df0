"""The compiler that makes host code for another kind of processor than this machine's: `ziglang`, from PyPI.

The DSL makes host code for the machine that it runs on. Why this compiler, and why not always:
docs/decisions/0035-other-hosts.md.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ...cache.target import host_machine
from ...errors import MachineError
from ..packages import version

CROSS_COMPILER = "ziglang"
"""The wheel that has it: clang and lld in one program, for every kind of host alike."""

HINT = "`pip install 'fa4-precompile[cross]'`"

_TRIPLES = MappingProxyType({"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu"})


@dataclass(frozen=True)
class CrossCompiler:
    """Compiles LLVM IR and C for hosts of one kind.

    Attributes:
        clang, lld: the commands.
        triple: the hosts, as LLVM calls them.
        version: of the distribution.
    """

    clang: tuple[str, ...]
    lld: tuple[str, ...]
    triple: str
    version: str

    @property
    def identity(self) -> Mapping[str, str]:
        """What a toolchain holds of it: host code that it has compiled has other bytes than another one's."""
        return {CROSS_COMPILER: self.version}


def host_compiler(machine: str) -> Mapping[str, str]:
    """Return what a toolchain holds of the compiler that is needed here for hosts of a kind; empty if it is the DSL.

    Raises `MachineError` as `cross_compiler`.
    """
    return {} if machine == host_machine() else cross_compiler(machine).identity


def cross_compiler(machine: str) -> CrossCompiler:
    """Return what compiles for hosts of a kind, as `uname -m` calls it. Raises `MachineError` if nothing does."""
    here = f"host code for {machine} hosts is compiled on this {host_machine()} machine by `{CROSS_COMPILER}`"
    if machine not in _TRIPLES:
        raise MachineError(f"{here}, which is asked for {' and '.join(_TRIPLES)} hosts only", "build on such a host")
    found = importlib.util.find_spec(CROSS_COMPILER)
    program = Path(found.origin or "").with_name("zig") if found else None
    if program is None:
        raise MachineError(f"{here}, which is not installed", f"{HINT}; or build on such a host, which needs no GPU")
    if not program.is_file():
        raise MachineError(f"{here}, of which `{program}` is missing", f"install it again: {HINT}")
    command = str(program)
    clang = (command, "clang", "-target", _TRIPLES[machine])
    return CrossCompiler(clang, (command, "ld.lld"), _TRIPLES[machine], version(CROSS_COMPILER))

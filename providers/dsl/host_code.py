"""The host code of a kernel: what launches it, and runs on the job's processor."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Any

from ...cache.target import host_machine
from ...errors import ProductError

_LEAST = MappingProxyType({"x86_64": ("x86-64", "+sse2"), "aarch64": ("generic", "+neon")})
"""The processor that every one of a kind can stand in for, as LLVM calls it, and what of it LLVM must be told."""

# What of a module in LLVM IR says for which hosts it is. A compiler that is told another kind puts in its own.
_HOST = re.compile(r"^target (?:datalayout|triple) = \".*\"\n", re.MULTILINE)


def for_any_processor(compiled: Any) -> None:
    """Have a compiled function exported for any processor of this machine's kind.

    Left alone, the DSL exports for the very processor that it runs on: its AVX-512 instructions end a job elsewhere
    by SIGILL, and two builders make other bytes. What LLVM reads of a function overrides what it finds out itself.

    Raises `ProductError` for a function that can't be told.
    """
    from cutlass._mlir import ir

    cpu, features = _LEAST[host_machine()]
    module = getattr(compiled, "ir_module", None)
    if module is None:
        raise ProductError("the DSL does not show the host code of what it has compiled; use a release that does")
    with module.context:
        for operation in module.body.operations:
            if operation.operation.name == "llvm.func":
                operation.attributes["target_cpu"] = ir.StringAttr.get(cpu)
                operation.attributes["target_features"] = ir.Attribute.parse(f'#llvm.target_features<["{features}"]>')


def on_another_host(ir: str, machine: str) -> str:
    """Return what `for_any_processor` had exported as LLVM IR, for any processor of another kind of machine.

    Raises `ProductError` if the IR does not say for which processor it is, as then nothing is known of it.
    """
    told = _told(host_machine())
    if told not in ir:
        raise ProductError(f"the LLVM IR of the DSL does not have `{told}`; use a release that is known")
    return _HOST.sub("", ir).replace(told, _told(machine))


def _told(machine: str) -> str:
    cpu, features = _LEAST[machine]
    return f'"target-cpu"="{cpu}" "target-features"="{features}"'

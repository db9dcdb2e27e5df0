"""From the DSL's LLVM IR to a shared object for hosts of another kind than this machine's.

The DSL compiles host code for the machine that it runs on, and refuses another one together with TVM-FFI. The IR that
it exports is that code before it is made for a processor, with the cubin in it, which nothing touches here. See
docs/decisions/0035-other-hosts.md.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..errors import ProductError
from ..providers.dsl.cross import CROSS_COMPILER, CrossCompiler, cross_compiler
from ..providers.dsl.host_code import on_another_host
from ..providers.dsl.installation import DSL, dsl_distributions
from .link import C_FLAGS, LINK_FLAGS, compiler_environment, exports_of, initializer_of

# The DSL has optimized what it exports; -O2 would take a third longer, for the same code but for some bytes.
_CLANG = (*C_FLAGS, "-O1", "-c", "-Wno-override-module")
_LLD = ("-shared", *LINK_FLAGS, "-z", "noexecstack")

# Operations of one kind of processor, which the DSL has no reason to use in what checks arguments and launches.
_OF_A_PROCESSOR = re.compile(r"@llvm\.(x86|aarch64|arm)\.[\w.]+")


def retarget(ir: Path, symbol: str, machine: str) -> bytes:
    """Return the shared object that `link` makes of an object file, made of LLVM IR for hosts of another kind.

    Raises `ProductError` for IR that the compiler does not take, with its words and the versions of both.
    """
    compiler = cross_compiler(machine)
    text = on_another_host(ir.read_text(encoding="utf-8"), machine)
    if found := _OF_A_PROCESSOR.search(text):
        raise ProductError(f"the DSL's host code has `{found[0]}`, which is for one kind of processor only")
    with tempfile.TemporaryDirectory(prefix="fa4-link-") as folder:
        Path(folder, "kernel.ll").write_text(text, encoding="utf-8")
        Path(folder, "initializer.c").write_text(initializer_of(symbol), encoding="utf-8")
        Path(folder, "exports").write_text(exports_of(symbol), encoding="utf-8")
        _run(compiler, [*compiler.clang, *_CLANG, "kernel.ll", "initializer.c"], folder)
        _run(
            compiler,
            [*compiler.lld, *_LLD, "--version-script=exports", "-o", "kernel.so", "kernel.o", "initializer.o"],
            folder,
        )
        return Path(folder, "kernel.so").read_bytes()


def _run(compiler: CrossCompiler, command: Sequence[str], folder: str) -> None:
    done = subprocess.run(
        command, cwd=folder, env=compiler_environment(), capture_output=True, text=True, check=False, errors="replace"
    )
    if done.returncode != 0:
        said = done.stderr.strip() or f"it ended with {done.returncode}"
        dsl = dsl_distributions().get(DSL)
        raise ProductError(f"{CROSS_COMPILER} {compiler.version} does not take the LLVM IR of the DSL {dsl}:\n{said}")

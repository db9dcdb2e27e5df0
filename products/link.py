"""From the DSL's object file to a shared object that `dlopen` takes, with the C compiler of this machine.

The DSL's host code loads its cubin onto the GPU in the first call of a kernel. `preload` has to do it before any call,
so what is linked gets a function more, which does the same: `docs/decisions/0010-initializer.md`.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import MappingProxyType

from ..cache.target import host_machine
from ..errors import Fa4PrecompileError, MachineError
from .load import INITIALIZER_SUFFIX, SYMBOL_PREFIX

# No start files: a kernel needs none, and they differ from one distribution's compiler to the next. No build id: the
# blob's name is its digest already. No name of the compiler, and none of what distributions turn on by themselves: the
# same kernel is to have the same bytes, whichever compiler has linked it.
C_FLAGS = ("-O2", "-fPIC", "-fno-stack-protector", "-fno-ident", "-fno-asynchronous-unwind-tables", "-g0")
"""How the initializer is compiled."""

_FLAGS_OF_MACHINE = MappingProxyType({"x86_64": "-fcf-protection=none", "aarch64": "-mbranch-protection=none"})

# Others say where it is to look for libraries and headers, and what a library is to look for when it is loaded
# (LIBRARY_PATH, CPATH, GCC_EXEC_PREFIX, LD_RUN_PATH, NIX_LDFLAGS): one kernel id would have other bytes.
_PASSED_ON = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH")

# What the DSL calls an object's own functions, and the two of its run time that take what they have loaded.
_INTERNAL_PREFIX = "__cute_internal_"
_ONCE = ("cuda_dialect_init_library_once", "cuda_dialect_unload_library_once")

LINK_FLAGS = ("--build-id=none", *(f"--wrap={name}" for name in _ONCE))
"""What every linker is told."""

# The state of what is loaded moves from the DSL's private variable to one that is known here, so that the initializer
# and the kernel's first call find each other's work.
_INITIALIZER = """
static long state;
typedef void function(void);
extern int __real_cuda_dialect_init_library_once(long *, function *, function *, function *);
extern void __real_cuda_dialect_unload_library_once(long *);
extern function {internal}_cuda_init, {internal}_cuda_load_to_device, TVMFFIErrorSetRaisedFromCStr;

int __wrap_cuda_dialect_init_library_once(long *unused, function *init, function *load, function *raise)
{{
    return __real_cuda_dialect_init_library_once(&state, init, load, raise);
}}

void __wrap_cuda_dialect_unload_library_once(long *unused)
{{
    __real_cuda_dialect_unload_library_once(&state);
}}

int {initializer}(void)
{{
    return __real_cuda_dialect_init_library_once(
        &state, {internal}_cuda_init, {internal}_cuda_load_to_device, TVMFFIErrorSetRaisedFromCStr);
}}
"""


def find_linker() -> list[str]:
    """Return the command of the C compiler: `$CC`, else cc, gcc or clang. Raises `MachineError` if there is none."""
    named = os.environ.get("CC")
    for command in [_words(named)] if named else [["cc"], ["gcc"], ["clang"]]:
        if command and shutil.which(command[0]):
            return command
    what = f"`CC={named}` is no command here" if named else "no C compiler was found (cc, gcc, clang)"
    raise MachineError(f"{what}; kernels are linked with one", "`apt-get install gcc libc6-dev`, or set `CC`")


def _words(named: str) -> list[str]:
    try:
        return shlex.split(named)
    except ValueError as error:
        what = f"`CC={named}` can't be split into words: {str(error).lower()}"
        raise MachineError(what, "close the quote; `CC` is a command with its options, as in a shell") from None


def link(object_file: Path, symbol: str) -> bytes:
    """Return the shared object made of an object file, with a kernel's function and its initializer, and no other.

    Raises `Fa4PrecompileError` with what the linker said.
    """
    with tempfile.TemporaryDirectory(prefix="fa4-link-") as folder:
        Path(folder, "exports").write_text(exports_of(symbol))
        Path(folder, "initializer.c").write_text(initializer_of(symbol))
        command = [
            *find_linker(),
            *("-shared", "-nostartfiles", *C_FLAGS),
            *filter(None, [_FLAGS_OF_MACHINE.get(host_machine())]),
            *(f"-Wl,{flag}" for flag in LINK_FLAGS),
            "-Wl,--version-script=exports",
            "-o",
            "kernel.so",
            str(object_file.absolute()),
            "initializer.c",
        ]
        done = subprocess.run(
            command, cwd=folder, env=compiler_environment(), capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise Fa4PrecompileError(f"`{shlex.join(command)}` failed:\n{done.stderr.strip()}")
        return Path(folder, "kernel.so").read_bytes()


def initializer_of(symbol: str) -> str:
    """Return the C source of a kernel's initializer."""
    return _INITIALIZER.format(internal=_INTERNAL_PREFIX + symbol, initializer=symbol + INITIALIZER_SUFFIX)


def exports_of(symbol: str) -> str:
    """Return the linker's version script: only the kernel's two are visible, so that none can answer for another.

    See quack#162.
    """
    return f"{{ global: {SYMBOL_PREFIX}{symbol}; {symbol + INITIALIZER_SUFFIX}; local: *; }};\n"


def compiler_environment() -> dict[str, str]:
    """Return the variables that the C compiler gets: what it needs to run, and none that changes what it makes."""
    return {**{name: os.environ[name] for name in _PASSED_ON if name in os.environ}, "LC_ALL": "C"}

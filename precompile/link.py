"""From the DSL's object file to a shared object that `dlopen` takes, with the C compiler of this machine."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from ..errors import Fa4PrecompileError, MachineError

# No start files: a kernel needs none, and they differ from one distribution's compiler to the next.
# No build id: the blob's name is its digest already.
_FLAGS = ("-shared", "-nostartfiles", "-Wl,--build-id=none")


def find_linker() -> list[str]:
    """Return the command of the C compiler: `$CC`, else cc, gcc or clang. Raises `MachineError` if there is none."""
    named = os.environ.get("CC")
    for command in [shlex.split(named)] if named else [["cc"], ["gcc"], ["clang"]]:
        if command and shutil.which(command[0]):
            return command
    what = f"`CC={named}` is no command here" if named else "no C compiler was found (cc, gcc, clang)"
    raise MachineError(f"{what}; kernels are linked with one", "`apt-get install gcc libc6-dev`, or set `CC`")


def link(object_file: Path) -> bytes:
    """Return the shared object made of an object file. Raises `Fa4PrecompileError` with what the linker said."""
    with tempfile.TemporaryDirectory(prefix="fa4-link-") as folder:
        output = Path(folder, "kernel.so")
        command = [*find_linker(), *_FLAGS, "-o", str(output), str(object_file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Fa4PrecompileError(f"`{shlex.join(command)}` failed:\n{done.stderr.strip()}")
        return output.read_bytes()

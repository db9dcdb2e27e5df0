"""From a blob to an object file that has its function under another name, for who loads object files only.

A blob is linked, and no linker takes it apart again. So the object file holds the whole of it as data, and a function
that loads it from memory in its first call, as a job's loader does, and passes all calls on. Nothing is compiled anew:
the blob in it is the cache's, to the byte. It is made for a JIT linker, which wants an object file with few kinds of
sections, and refers to nothing but the C library and TVM-FFI.
"""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from pathlib import Path

from ..cache.key import BlobDigest
from ..errors import Fa4PrecompileError
from .link import compiler_environment, find_linker
from .load import SYMBOL_PREFIX, descriptor_path

_FLAGS = ("-c", "-O2", "-fPIC", "-fno-stack-protector", "-fno-asynchronous-unwind-tables")

_SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

__asm__(".section .rodata\\n.balign 16\\nblob:\\n.incbin \\"blob.so\\"\\nblob_end:\\n.previous\\n");
extern const char blob[] __attribute__((visibility("hidden")));
extern const char blob_end[] __attribute__((visibility("hidden")));
extern void TVMFFIErrorSetRaisedFromCStr(const char *, const char *);

typedef int function(void *, const void *, int32_t, void *);
static function *kernel;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static char why[1000];

static void load(void)
{{
    int descriptor = memfd_create("{symbol}", MFD_CLOEXEC);
    for (const char *at = blob; at < blob_end;) {{
        ssize_t written = write(descriptor, at, blob_end - at);
        if (written <= 0)
            break;
        at += written;
    }}
    char path[{room}];
    snprintf(path, sizeof path, "{path}", descriptor);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library)
        kernel = (function *)dlsym(library, "{prefix}{symbol}");
    if (!kernel) {{
        const char *said = dlerror();
        snprintf(why, sizeof why, "kernel {symbol} does not load: %s", said ? said : "it is not known why");
    }}
    close(descriptor);
}}

int {prefix}{name}(void *self, const void *arguments, int32_t count, void *result)
{{
    pthread_once(&once, load);
    if (!kernel) {{
        TVMFFIErrorSetRaisedFromCStr("RuntimeError", why);
        return -1;
    }}
    return kernel(self, arguments, count, result);
}}
"""


def forwarding_object(blob: bytes, digest: BlobDigest, symbol: str, name: str) -> bytes:
    """Return an object file whose function `name` is that of a blob, `symbol` (both without TVM-FFI's prefix).

    Raises `MachineError` without a C compiler, `Fa4PrecompileError` with what it said.
    """
    path = descriptor_path("%d", digest)
    source = _SOURCE.format(prefix=SYMBOL_PREFIX, symbol=symbol, name=name, path=path, room=len(path) + 20)
    with tempfile.TemporaryDirectory(prefix="fa4-forward-") as folder:
        Path(folder, "blob.so").write_bytes(blob)
        Path(folder, "forward.c").write_text(source)
        command = [*find_linker(), *_FLAGS, "-o", "forward.o", "forward.c"]
        done = subprocess.run(
            command, cwd=folder, env=compiler_environment(), capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise Fa4PrecompileError(f"`{shlex.join(command)}` failed:\n{done.stderr.strip()}")
        return Path(folder, "forward.o").read_bytes()

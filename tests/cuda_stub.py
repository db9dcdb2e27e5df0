"""A driver that is none: it says what a B200's would, takes note of what is asked of it, and has a context when told.

A process that runs with `stub_driver` in its environment finds it as `libcuda.so.1`.
"""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

_SOURCE = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/syscall.h>

static int started, active, mode;
static volatile pid_t busy;

/* A driver that is taken down while somebody is in it: what becomes of that is anybody's guess. */
__attribute__((destructor)) static void gone(void)
{
    if (busy == getpid()) /* not in a child, which has no such thread */
        abort();
}

static void note(const char *what, long value)
{
    const char *file = getenv("STUB_NOTES");
    FILE *notes = file ? fopen(file, "a") : NULL;
    if (notes) {
        int is_main = syscall(SYS_gettid) == getpid();
        fprintf(notes, "%s %s %ld\n", is_main ? "main" : "thread", what, value);
        fclose(notes);
    }
}

int cuInit(unsigned flags) { note("cuInit", 0); started = 1; return 0; }
int cuDriverGetVersion(int *version)
{
    const char *cuda = getenv("STUB_CUDA");
    *version = cuda ? atoi(cuda) : 13000;
    return 0;
}
int cuDeviceGetCount(int *count) { *count = 1; return started ? 0 : 3; }
int cuDeviceGet(int *device, int index) { *device = index; return started ? 0 : 3; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "a stub", size); return 0; }
int cuDeviceGetAttribute(int *value, int which, int device)
{
    *value = which == 75 ? 10 : which == 76 ? 0 : which == 16 ? 148 : 0;
    return started ? 0 : 3;
}
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *is_active)
{
    *is_active = active;
    return started ? 0 : 3;
}
int cuDevicePrimaryCtxRetain(void **context, int device)
{
    note("retain", active);
    active = 1;
    *context = (void *)0x7e57;
    return 0;
}
int cuDevicePrimaryCtxRelease_v2(int device) { note("release", 0); return 0; }
int cuCtxSetCurrent(void *context) { note("current", (long)context); return 0; }
int cuThreadExchangeStreamCaptureMode(int *other)
{
    int before = mode;
    note("mode", *other);
    mode = *other;
    *other = before;
    return 0;
}

/* What a job does, and the initializers of the tests' kernels. */
void stub_start(int has_context) { started = 1; active = has_context; }
int stub_load(long number)
{
    const char *pause = getenv("STUB_PAUSE_US");
    note("load", number);
    busy = getpid();
    if (pause)
        usleep(atoi(pause));
    busy = 0;
    return getenv("STUB_FAILS") ? 2 : 0;
}
"""

INITIALIZER = """
    extern int stub_load(long);
    return stub_load({number});
"""
"""The body of a kernel's initializer that the stub takes note of."""


@cache
def stub_driver(folder: Path) -> Path:
    """Make the library in a folder, and return that."""
    source = folder / "stub.c"
    source.write_text(_SOURCE)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(folder / "libcuda.so.1"), str(source)], check=True)
    return folder


def with_stub(folder: Path, notes: Path, **environment: str) -> dict[str, str]:
    """Return the environment of a process that finds the stub, and whose kernels find its functions."""
    driver = stub_driver(folder)
    return {
        **os.environ,
        "LD_LIBRARY_PATH": str(driver),
        "LD_PRELOAD": str(driver / "libcuda.so.1"),
        "STUB_NOTES": str(notes),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
        **environment,
    }

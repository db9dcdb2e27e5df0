"""Shared objects that load: functions that return a number, made with the C compiler. They are no kernels."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from fa4_precompile.cache.key import encode_key
from fa4_precompile.cache.outcome import Miss
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.record import Record
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.toolchain import Toolchain, abi
from fa4_precompile.loader.kernel import Kernel
from fa4_precompile.loader.resolve import Cache
from fa4_precompile.providers.dsl.driver import Device
from fa4_precompile.providers.installed import installed_run_time
from fa4_precompile.providers.registry import DEFAULT
from support import make_record, make_toolchain

KEY = (64, True, "made up")
B200 = Device(0, "a made-up B200", "sm_100a", 148)

# A function as TVM-FFI calls it: it answers the number. What it is called is known when its record is.
_SOURCE = """
int __tvm_ffi_SYMBOL(void *self, void *arguments, int count, long *result)
{{
    {body}
    *(int *)result = 1;
    result[1] = {number};
    return 0;
}}

int SYMBOL_init(void)
{{
    {initializer}
}}
"""


def loadable_source(number: object, body: str = "", initializer: str = "return 0;") -> str:
    """Return the C source of a function called SYMBOL and its initializer."""
    return _SOURCE.format(number=number, body=body, initializer=initializer)


@cache
def fitting_toolchain() -> Toolchain:
    """Return a toolchain whose kernels run here, and that is installed nowhere."""
    here = installed_run_time(DEFAULT)
    tvm_ffi = f"{abi(here.tvm_ffi)}.99"
    return make_toolchain(provider_source=here.provider_source, tvm_ffi=tvm_ffi, machine=here.machine)


def publish_loadable(root: Path, number: int, *, source: str = "", **changes: Any) -> Record:
    """Publish a function that answers a number to a root, which is made where it is not there."""
    toolchain: Toolchain = changes.pop("toolchain", fitting_toolchain())
    fields: dict[str, Any] = {"key": encode_key(KEY), "facts": {}, "toolchain": toolchain.id} | changes
    blob = _compiled((source or loadable_source(number)).replace("SYMBOL", make_record(**fields).symbol))
    record = make_record(blob, **fields)
    made = Publisher(Root(root))
    made.create()
    made.publish_toolchain(toolchain)
    made.publish(record, blob)
    return record


@cache
def _compiled(source: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="fa4-test-") as folder:
        path = Path(folder, f"{hashlib.sha256(source.encode()).hexdigest()[:8]}.c")
        path.write_text(source)
        command = ["cc", "-shared", "-fPIC", "-nostartfiles", "-o", str(path.with_suffix(".so")), str(path)]
        subprocess.run(command, check=True)
        return path.with_suffix(".so").read_bytes()


def find_kernel(cache: Cache, key: object = KEY, device: Device = B200) -> Kernel:
    """Return the kernel of a key, which must be there."""
    kernel = cache.resolve("fwd", key, device)
    assert isinstance(kernel, Kernel), kernel
    return kernel


def find_miss(cache: Cache, key: object = KEY, device: Device = B200) -> Miss:
    """Return why there is no kernel of a key."""
    miss = cache.resolve("fwd", key, device)
    assert isinstance(miss, Miss)
    return miss

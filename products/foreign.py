"""Blobs for hosts of another kind than this machine's, which can't be loaded here: that they could be, there."""

from __future__ import annotations

import struct
from collections.abc import Collection
from types import MappingProxyType

from ..cache.target import host_machine
from ..errors import ProductError
from ..providers.dsl.installation import require_runtime_library
from .cubin import exported_symbols, imported_symbols
from .load import tvm_ffi_library

_MACHINE_AT = 18  # e_machine in an ELF header
_MACHINES = MappingProxyType({62: "x86_64", 183: "aarch64"})

# What LLVM may call though no source does. Every process that runs Python has them.
_OF_LIBC = frozenset({"memcpy", "memmove", "memset", "memcmp"})


def machine_of(blob: bytes) -> str:
    """Return the kind of hosts that a shared object is for, as `uname -m` calls it. Raises `ProductError`."""
    try:
        number = int(struct.unpack_from("<H", blob, _MACHINE_AT)[0])
    except struct.error:
        raise ProductError("the linker produced no ELF file") from None
    return _MACHINES.get(number, f"machine {number} of the ELF standard")


def is_for_other_hosts(blob: bytes) -> bool:
    """Return whether bytes are a shared object for another known kind of hosts than this machine's."""
    is_elf = blob.startswith(b"\x7fELF") and len(blob) > _MACHINE_AT + 1
    return is_elf and machine_of(blob) in {*_MACHINES.values()} - {host_machine()}


def require_could_load(blob: bytes, provided: Collection[str]) -> None:
    """Raise `ProductError` for a blob that needs what is not `provided`."""
    if missing := sorted(imported_symbols(blob).difference(provided)):
        raise ProductError(f"no run-time library has {', '.join(f'`{name}`' for name in missing)}, which it refers to")


def provided() -> frozenset[str]:
    """Return what the run-time libraries and the C library have for a blob.

    Those that are here are asked: of one release they have the same functions on every kind of host.
    """
    library = tvm_ffi_library()
    found = exported_symbols(library.read_bytes()) if library is not None else set()
    return _OF_LIBC | found | exported_symbols(require_runtime_library().read_bytes())

"""Loading a kernel from bytes that were verified. Standard library only until the first load.

`main` is the far side of the builder's last test (`trial.py`): a process that has nothing but the run-time libraries,
and forks one for each blob, which loads it as a job would.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NewType

from ..cache.key import BlobDigest
from ..errors import LoadError
from ..providers.dsl.installation import RUNTIME_LIBRARY, runtime_library
from ..providers.packages import package_folder

Handle = NewType("Handle", int)
"""A shared object that is loaded, by the C library's handle. It is never given back."""

_BY_POSITION: Mapping[str, bool] = MappingProxyType({})

SYMBOL_PREFIX = "__tvm_ffi_"
INITIALIZER_SUFFIX = "_init"
_UNDEFINED = "undefined symbol: "  # glibc's words
_MOST_WORDS = 2000  # a pipe takes as many at once


def _of_libc(name: str, result: Any, *arguments: Any) -> Any:
    """Return a function of the C library.

    A call holds the interpreter's lock, as one of `ctypes.CDLL` does: a process must not fork while another thread is
    in the midst of loading a library.
    """
    return ctypes.PYFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))


# `ctypes.CDLL` makes a class for each library: of the 62 us that it takes, 25.
_DLOPEN = _of_libc("dlopen", ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int)
_DLSYM = _of_libc("dlsym", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)
_DLERROR = _of_libc("dlerror", ctypes.c_char_p)


def open_run_time(cached: Callable[[], tuple[BlobDigest, bytes] | None] = lambda: None) -> None:
    """Load the two libraries that kernels refer to, with their symbols visible to all.

    Where the DSL is not installed, its library is what `cached` returns: verified bytes and their SHA-256.

    Raises `LoadError`.
    """
    _open_installed("libtvm_ffi.so", tvm_ffi_library())
    installed = runtime_library()
    found = cached() if installed is None else None
    if found is None:
        _open_installed(RUNTIME_LIBRARY, installed)
        return
    digest, data = found
    _open_bytes(RUNTIME_LIBRARY, data, digest, os.RTLD_NOW | os.RTLD_GLOBAL)


def _open_installed(name: str, path: Path | None) -> None:
    if path is None or not path.is_file():
        raise LoadError(name, "the run-time library is not installed, nor in the cache")
    try:
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise LoadError(name, str(error)) from None


def open_blob(blob: bytes, digest: BlobDigest, symbol: str) -> tuple[Handle, int]:
    """Load the bytes of a blob, whose SHA-256 is `digest`, and return the library and its TVM-FFI function's address.

    The library stays loaded as long as the process: the driver may hold on to its cubin.

    Raises `LoadError` if the bytes are no shared object of this machine or do not have the symbol.
    """
    library = _open_bytes(symbol, blob, digest, os.RTLD_NOW | os.RTLD_LOCAL)
    address = _DLSYM(library, (SYMBOL_PREFIX + symbol).encode())
    if not address:
        raise LoadError(symbol, _said())
    return library, address


def _open_bytes(name: str, data: bytes, digest: BlobDigest, mode: int) -> Handle:
    """Load a library from its bytes, whose SHA-256 is `digest`. Raises `LoadError`.

    It is made from these bytes in memory, so it is what was verified, whatever happens to the file.
    """
    descriptor = -1
    try:
        descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        library = _DLOPEN(descriptor_path(descriptor, digest).encode(), mode)
        if not library:
            raise LoadError(name, _reason(_said()))
        return Handle(library)
    except OSError as error:
        raise LoadError(name, str(error)) from None
    finally:
        with suppress(OSError):
            os.close(descriptor)


def make_function(address: int, keywords: Mapping[str, bool] = _BY_POSITION) -> Any:
    """Return a kernel's TVM-FFI function as the provider calls it: a `tvm_ffi.Function`.

    If the provider gives arguments by name, `keywords` are the names, and the function is one that takes either.
    Raises `LoadError` if it can't be made of them.
    """
    import tvm_ffi

    function = tvm_ffi.Function.__from_extern_c__(address)
    if not keywords:
        return function
    names = list(keywords)
    needed = max((place for place, must in enumerate(keywords.values(), 1) if must), default=0)
    try:
        from tvm_ffi.utils.kwargs_wrapper import make_kwargs_wrapper

        return make_kwargs_wrapper(function, names, (None,) * (len(names) - needed))
    except (ImportError, TypeError, ValueError) as error:
        raise LoadError(", ".join(names), f"no function can take arguments by these names: {error}") from None


def initialize(library: Handle, symbol: str) -> None:
    """Load a kernel's cubin onto the GPUs of this process, as its first call would. Raises `LoadError`."""
    address = _DLSYM(library, (symbol + INITIALIZER_SUFFIX).encode())
    if not address:
        raise LoadError(symbol, "it has no initializer")
    if ctypes.CFUNCTYPE(ctypes.c_int)(address)() != 0:
        raise LoadError(symbol, "the driver does not take its cubin: out of GPU memory, or a GPU of another arch")


def _said() -> str:
    """Return the loader's words on what this thread asked of it last."""
    words: bytes | None = _DLERROR()
    return (words or b"it is not known why").decode(errors="replace")


def descriptor_path(descriptor: int | str, digest: BlobDigest) -> str:
    """Return a path of a descriptor that no other blob's had.

    glibc takes a path that it has seen for the library that it loaded from there, without a look at the file; and the
    numbers of closed descriptors come again. So the digest is spelled into the path, a `/.` for a 1 and a `/` for a 0:
    64 bits of it, as each component costs time.
    """
    bits = f"{int(digest[:16], 16):064b}"
    return f"/proc/self{bits.replace('0', '/').replace('1', '/.')}/fd/{descriptor}"


def _reason(words: str) -> str:
    """Return the loader's words; if a run-time library lacks a symbol, which: the blob's path says nothing then."""
    _, found, missing = words.rpartition(_UNDEFINED)
    if not found:
        return words
    return (
        f"the run-time libraries that are here don't have `{missing.strip()}`, so they are older than those that it "
        "was built with; install the DSL and TVM-FFI that built it, or newer ones"
    )


def tvm_ffi_library() -> Path | None:
    """Return TVM-FFI's library, or None if it is not installed."""
    folder = package_folder("tvm_ffi")
    return folder / "lib" / "libtvm_ffi.so" if folder else None


def main() -> None:
    """Try to load blobs, until standard input ends. Raises `LoadError` without the run-time libraries.

    Each comes as a line with its symbol and size and then its bytes, and is answered by a line: why it does not load,
    as a JSON string, empty if it does.
    """
    open_run_time()
    while header := sys.stdin.buffer.readline():
        symbol, size = header.decode().split()
        answer = _tried(sys.stdin.buffer.read(int(size)), symbol)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _tried(blob: bytes, symbol: str) -> str:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            open_blob(blob, BlobDigest(hashlib.sha256(blob).hexdigest()), symbol)
        except BaseException as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode()[:_MOST_WORDS])
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as words:
        reason = words.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    return f"it was killed by {signal.Signals(os.WTERMSIG(status)).name}" if os.WIFSIGNALED(status) else reason

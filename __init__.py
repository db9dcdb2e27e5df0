"""Ahead-of-time builds of FlashAttention-4's CuTe-DSL kernels, and the cache that jobs load them from."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cache.outcome import Miss, MissReason
    from .errors import CompileForbidden, CompilerAbsent, Fa4PrecompileError, KernelMissing
    from .loader.install import install, preload, stats, uninstall
    from .loader.kernel import Kernel
    from .loader.resolve import Cache
    from .loader.stats import Stats
    from .precompile.sizes import block_sizes
    from .providers.call import BlockSizes

__all__ = [
    "BlockSizes",
    "Cache",
    "CompileForbidden",
    "CompilerAbsent",
    "Fa4PrecompileError",
    "Kernel",
    "KernelMissing",
    "Miss",
    "MissReason",
    "Stats",
    "__version__",
    "block_sizes",
    "install",
    "preload",
    "stats",
    "uninstall",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import what is asked for: torch imports this package in every process, also where it has nothing to do."""
    match name:
        case "install" | "uninstall" | "preload" | "stats":
            module = ".loader.install"
        case "Cache":
            module = ".loader.resolve"
        case "Kernel":
            module = ".loader.kernel"
        case "BlockSizes":
            module = ".providers.call"
        case "block_sizes":
            module = ".precompile.sizes"
        case "Miss" | "MissReason":
            module = ".cache.outcome"
        case "Stats":
            module = ".loader.stats"
        case "CompileForbidden" | "CompilerAbsent" | "Fa4PrecompileError" | "KernelMissing":
            module = ".errors"
        case _:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(module, __name__), name)


def __dir__() -> list[str]:
    return __all__

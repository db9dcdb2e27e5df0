"""Ahead-of-time builds of FlashAttention-4's CuTe-DSL kernels, and the cache that they are kept in."""

from .errors import Fa4PrecompileError

__all__ = ["Fa4PrecompileError", "__version__"]

__version__ = "0.1.0"

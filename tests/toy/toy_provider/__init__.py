"""What fa4-precompile has to know of `toy_kernels`. Registered by the line in `toy_kernels-0.1.dist-info`."""

from .provider import PROVIDER

__all__ = ["PROVIDER"]

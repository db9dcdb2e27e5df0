"""Which version of this package a build has, to the byte: what makes kernels here must make them on a worker, too."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from ...providers.packages import source_digest

_ROOMS = ("cache", "precompile", "products", "providers", "text")
"""What plans, compiles and checks. That the rest is another one makes no other kernels."""


@functools.cache
def ourselves() -> str:
    """Return a digest over the source of what builds."""
    root = Path(__file__).parents[2]
    digests = [source_digest(room, folder=root / room) for room in _ROOMS]
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:12]

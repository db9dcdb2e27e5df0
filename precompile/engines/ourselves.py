"""Which version of this package a build has, to the byte: what makes kernels here must make them on a worker, too."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from ...providers.packages import python_files

_ROOMS = ("cache", "precompile", "products", "providers", "text")
"""What plans, compiles and checks. That the rest is another one makes no other kernels."""


@functools.cache
def ourselves() -> str:
    """Return a digest over the source of what builds."""
    root = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for room in _ROOMS:
        for path in sorted(python_files(root / room)):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()[:12]

"""Modules next to a package of FlashAttention-4's lineage that compile its kernels themselves. Standard library only.

SGLang calls a kernel class of its copy of FA4 from a module two folders up, and keeps the function there.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path

from ..packages import package_folder
from .written import source_files, written


def beside(package: str) -> Sequence[str]:
    """Return the modules beside a package and beside its parent that import from it and keep what they compile.

    Of the same top-level package only, so that for `flash_attn.cute` one folder is listed. Imports nothing.
    """
    folder = package_folder(package) if "." in package else None
    return () if folder is None else _beside(package, folder)


@functools.cache
def _beside(package: str, folder: Path) -> Sequence[str]:
    found = []
    parents = package.split(".")[:-1]
    for levels in range(min(2, len(parents))):
        parent = parents[: len(parents) - levels]
        tail = package.removeprefix(".".join(parent))
        imports = re.compile(rf"^[ \t]*(?:from|import)[ \t]+(?:{re.escape(package)}|{re.escape(tail)})\b", re.MULTILINE)
        for stem, source in source_files(folder.parents[levels]):
            if imports.search(source) and written(source):
                found.append(".".join([*parent, stem]))
    return tuple(sorted(found))

"""What commands that carry a cache say when they have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..cache.contents import Contents
from ..cache.store import Root
from ..carry.receive import Received
from ..errors import RefusedError
from ..text.words import count, megabytes
from .output import note


def counted(contents: Contents) -> str:
    """Return what is in a list, in words."""
    return f"{count(len(contents.entries), 'file')}, {count(contents.kernels, 'kernel')}, {megabytes(contents.size)}"


def new_files(files: int, size: int) -> str:
    """Return what of it was not there yet, in words."""
    return f"{count(files, 'new file')}, {megabytes(size)}"


def document(contents: Contents) -> dict[str, object]:
    """Return what is in a list, as JSON."""
    return {
        "fingerprint": contents.fingerprint,
        "files": len(contents.entries),
        "kernels": contents.kernels,
        "bytes": contents.size,
    }


def require_sealed(root: Root, came: Received, expect: Sequence[str], trust_keys: Sequence[Path]) -> None:
    """Say that a root is not sealed, as it has more than was carried; where somebody must vouch for it, raise that."""
    if came.is_sealed:
        return
    reason = "has files of another cache too, so it is not sealed"
    if expect or trust_keys:
        raise RefusedError(str(root.path), f"it {reason}, and no job would take it for what is expected", _NEW_FOLDER)
    note(f"`{root.path}` {reason}")


_NEW_FOLDER = "name a new folder with `--cache DIR`"

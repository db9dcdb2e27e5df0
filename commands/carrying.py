"""What commands that carry a cache say when they have."""

from __future__ import annotations

from ..cache.contents import Contents
from ..text.words import count, megabytes


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

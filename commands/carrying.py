"""What commands that carry a cache show while they do, and say when they have."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..cache.contents import Contents
from ..text.words import count, megabytes

_LARGE_BYTES = 32 << 20


@contextmanager
def progress(words: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield a function that is told what is done, in bytes: a bar on a terminal, if there is enough to wait for."""
    if total < _LARGE_BYTES or not sys.stderr.isatty():
        yield lambda size: None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=words, unit="B", unit_scale=True, leave=False, file=sys.stderr) as bar:

        def moved(size: int) -> None:
            bar.update(size)

        yield moved


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

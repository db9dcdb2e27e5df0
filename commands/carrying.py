"""What commands that carry a cache show while they do, and say when they have."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..cache.contents import Contents
from ..cache.store import Root
from ..carry.receive import Received
from ..errors import RefusedError
from ..text.words import count, megabytes
from .output import note

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


def kernels_of(contents: Contents) -> int:
    """Return how many kernels are in a list."""
    return sum(1 for _ in contents.of_kind("records"))


def counted(contents: Contents) -> str:
    """Return what is in a list, in words."""
    return (
        f"{count(len(contents.entries), 'file')}, {count(kernels_of(contents), 'kernel')}, {megabytes(contents.size)}"
    )


def document(contents: Contents) -> dict[str, object]:
    """Return what is in a list, as JSON."""
    return {
        "fingerprint": contents.fingerprint,
        "files": len(contents.entries),
        "kernels": kernels_of(contents),
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

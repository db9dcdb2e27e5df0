"""Writing one file outside a cache: whole under its name, or not there."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ..cache.descriptors import opened
from ..cache.layout import TEMPORARY
from ..errors import MachineError, UsageError


@contextmanager
def placed(path: Path, is_replacing: bool) -> Iterator[BinaryIO]:
    """Yield a file to write to, which has the path when all is written and synced; if anything fails, it never has.

    Raises `UsageError` if there is something of that name that is not to be replaced, or `MachineError`.
    """
    if os.path.lexists(path) and not is_replacing:
        raise UsageError(f"`{path}` is there already", "name another file, or replace it with `--force`")
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync(path.parent)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise MachineError(f"can't write `{path}`: {error.strerror}", "name a file in another folder") from None
        raise


def _sync(folder: Path) -> None:
    with opened(folder, os.O_RDONLY | os.O_DIRECTORY) as descriptor, suppress(OSError):
        os.fsync(descriptor)  # some network filesystems can't sync a folder

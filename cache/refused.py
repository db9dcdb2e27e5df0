"""What it means that the operating system refuses to write into a cache."""

from __future__ import annotations

import errno
from pathlib import Path

from ..errors import MachineError


def refused(error: OSError, folder: Path, root: Path) -> MachineError:
    """Return what to tell of an error in a folder of a cache, and what to do about it."""
    where = f" (`{folder.relative_to(root)}`)" if folder != root and folder.is_relative_to(root) else ""
    hints = {
        errno.ENOSPC: "free some space and go on: what is published is kept",
        errno.EDQUOT: "free some space and go on: what is published is kept",
        errno.EROFS: "the cache is on a read-only filesystem; name another folder with `--cache DIR`",
        errno.EACCES: "name a folder that you can write with `--cache DIR`",
        errno.ENAMETOOLONG: "give the target a shorter name, or the cache one with `--cache DIR`",
    }
    return MachineError(
        f"can't write to the cache `{root}`: {error.strerror}{where}",
        hints.get(error.errno or 0, "name another folder with `--cache DIR`"),
    )

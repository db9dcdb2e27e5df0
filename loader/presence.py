"""A sign of a process that its loader is in the place of the provider's compile caches, for `run`, which looks for one.

A report at exit is none: jobs end processes with `os._exit`, or by a signal.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

_LOG = logging.getLogger("fa4_precompile")


def leave_sign(folder: Path | None) -> None:
    """Leave an empty file, named by this process, in a folder if there is one. Never harms the job."""
    if folder is None:
        return
    try:
        os.close(os.open(folder / str(os.getpid()), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError:
        _LOG.debug("no sign could be left in `%s`", folder, exc_info=True)


def has_sign(folder: Path) -> bool:
    """Return whether a process has left a sign."""
    return any(folder.iterdir())

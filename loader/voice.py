"""How loud a process is. Of the many ranks of a job one speaks; the others' words are for who asks for them."""

from __future__ import annotations

import logging
import sys

from .ranks import placement

_LOG = logging.getLogger("fa4_precompile")


def is_heard() -> bool:
    """Return whether what this process says unasked is printed: it is rank 0, or has no rank, or was told to talk."""
    return not _rank() or _LOG.isEnabledFor(logging.INFO)


def warn(message: str) -> None:
    """Warn; as a rank that does not speak for the others, inform.

    The rank is asked for now: `torch.multiprocessing.spawn` has its children set it after they have imported torch.
    """
    rank = _rank()
    if rank:
        _LOG.info("fa4-precompile: rank %s: %s", rank, message)
    else:
        _LOG.warning("fa4-precompile: %s", message)


def set_level(level: str | None) -> None:
    """Have what is logged from a level on reach standard error, unless the process has a handler of its own for it."""
    if level is None:
        return
    _LOG.setLevel(level.upper())
    if not _LOG.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.addFilter(lambda _record: not logging.getLogger().handlers)
        _LOG.addHandler(handler)


def _rank() -> int:
    """Return the rank of a process, that on its host if there is no other; 0 for one that speaks."""
    found = placement()
    return found.rank if found.rank is not None else found.local_rank or 0

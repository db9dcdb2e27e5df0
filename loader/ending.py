"""Having something done when this process ends, whoever started it."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable


def is_child() -> bool:
    """Return whether Python's own `multiprocessing` (`torch.multiprocessing.spawn`, say) has started this process.

    Such a one leaves without `atexit`.
    """
    process = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None


def when_process_ends(act: Callable[[], None]) -> None:
    """Call a function when this process ends by itself. A child that is forked from it does not call it."""
    process = os.getpid()

    def act_here() -> None:
        if os.getpid() == process:
            act()

    multiprocessing = sys.modules.get("multiprocessing.util")
    if multiprocessing and is_child():
        multiprocessing.Finalize(None, act_here, exitpriority=0)
    else:
        atexit.register(act_here)

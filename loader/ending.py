"""Having something done when this process ends, whoever started it."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable


def when_process_ends(act: Callable[[], None]) -> None:
    """Call a function when this process ends by itself. A child that is forked from it does not call it."""
    process = os.getpid()

    def act_here() -> None:
        if os.getpid() == process:
            act()

    multiprocessing = sys.modules.get("multiprocessing.util")
    parent = sys.modules.get("multiprocessing.process")
    if multiprocessing and parent and parent.parent_process() is not None:
        # Python's own children (torch.multiprocessing.spawn) leave without `atexit`.
        multiprocessing.Finalize(None, act_here, exitpriority=0)
    else:
        atexit.register(act_here)

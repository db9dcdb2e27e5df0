"""The smallest engine: two processes of this machine, by the standard library."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import Executor, ProcessPoolExecutor


def executor() -> Executor:
    """Return what `--executor on_processes:executor` asks for."""
    # Not forked: the build has threads.
    return ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))

"""Which engine a build is given to, and what its workers are called."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineChoice:
    """An engine that is not connected yet.

    Attributes:
        name: as `--executor` has it.
        workers_publish: whether workers publish into the cache, which is on storage that all share; else what they
            compile comes back over the engine.
    """

    name: str
    workers_publish: bool = False


def host(worker: str) -> str:
    """Return the machine of a worker, which is called `HOST:PROCESS` or `tcp://HOST:PORT`."""
    return worker.rpartition(":")[0].rpartition("/")[2]

"""Which engine a build is given to."""

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

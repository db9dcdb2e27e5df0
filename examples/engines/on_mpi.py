"""MPI as an engine: rank 0 builds, the other ranks are its workers. Needs `-m mpi4py.futures`."""

from __future__ import annotations

from concurrent.futures import Executor

from mpi4py.futures import MPIPoolExecutor


def executor() -> Executor:
    """Return what `--executor on_mpi:executor` asks for."""
    return MPIPoolExecutor()

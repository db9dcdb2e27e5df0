"""Where a process is in its job: the host, and the rank that its launcher has given it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

# What each launcher calls rank, local rank and number of ranks. The first whose rank is set counts: `torchrun` and
# `mpirun` start processes within a step of Slurm's, whose numbers are those of the launchers then.
_LAUNCHERS = (
    ("RANK", "LOCAL_RANK", "WORLD_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "MPI_LOCALRANKID", "PMI_SIZE"),
    # Not SLURM_NTASKS: it is also set in a batch script, whose one process is no rank of so many.
    ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NUM_TASKS"),
)
_JOBS = ("SLURM_JOB_ID", "FLUX_JOB_ID", "LSB_JOBID", "PBS_JOBID", "TORCHELASTIC_RUN_ID")
_NO_JOB = "none"  # what `torchrun` calls a run that nobody has given an id
_RESTARTS = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
_LOCAL_RANK = "LOCAL_RANK"

_MOST_DIGITS = 9
_MOST_LETTERS = 100


@dataclass(frozen=True)
class Placement:
    """Where a process is in its job, as far as that is known.

    Attributes:
        host: the machine's name.
        rank: from 0 on, over all hosts; None where no launcher says one.
        local_rank: from 0 on, on this host.
        world_size: how many ranks the job has.
        job: what the scheduler calls the job, and the how-manieth restart of it this is; empty if nobody says.
    """

    host: str
    rank: int | None = None
    local_rank: int | None = None
    world_size: int | None = None
    job: str = ""


def placement(environment: Mapping[str, str] = os.environ) -> Placement:
    """Return where this process is, as its variables say now: a child of `torch.multiprocessing.spawn` sets its own."""
    for rank, local_rank, world_size in _LAUNCHERS:
        if (found := _number(environment, rank)) is not None:
            size = _number(environment, world_size)
            local = _number(environment, local_rank)
            return Placement(_host(), found, local, size if size and size > found else None, _job(environment))
    return Placement(_host(), None, _number(environment, _LOCAL_RANK), None, _job(environment))


def _host() -> str:
    return os.uname().nodename[:_MOST_LETTERS]


def _job(environment: Mapping[str, str]) -> str:
    named = next((value for name in _JOBS if (value := environment.get(name, "")) not in ("", _NO_JOB)), "")
    restarts = max((_number(environment, name) or 0 for name in _RESTARTS), default=0)
    words = [named[:_MOST_LETTERS], *([f"restart {restarts}"] if restarts else [])]
    return " ".join(filter(None, words))


def _number(environment: Mapping[str, str], name: str) -> int | None:
    value = environment.get(name, "")
    return int(value) if value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS else None

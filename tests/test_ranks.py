"""Where a process is in its job, as launchers say it."""

from __future__ import annotations

import os

import pytest

from fa4_precompile.loader.ranks import placement

_HOST = os.uname().nodename


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (None, None, None)),
        ({"RANK": "9", "LOCAL_RANK": "1", "WORLD_SIZE": "16"}, (9, 1, 16)),
        ({"SLURM_PROCID": "9", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "16"}, (9, 1, 16)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "16"}, (0, None, None)),
        (
            {
                "OMPI_COMM_WORLD_RANK": "9",
                "OMPI_COMM_WORLD_LOCAL_RANK": "1",
                "OMPI_COMM_WORLD_SIZE": "16",
                "SLURM_PROCID": "2",
                "SLURM_STEP_NUM_TASKS": "4",
            },
            (9, 1, 16),
        ),
        ({"PMI_RANK": "9", "MPI_LOCALRANKID": "1", "PMI_SIZE": "16"}, (9, 1, 16)),
        ({"RANK": "9", "WORLD_SIZE": "16", "SLURM_PROCID": "1", "SLURM_LOCALID": "0"}, (9, None, 16)),
        ({"RANK": "", "SLURM_PROCID": "3"}, (3, None, None)),
        ({"RANK": "9", "WORLD_SIZE": "4"}, (9, None, None)),
        ({"RANK": "nine", "WORLD_SIZE": "-1", "LOCAL_RANK": "\N{SUPERSCRIPT TWO}"}, (None, None, None)),
        ({"RANK": "9" * 5000}, (None, None, None)),
        ({"LOCAL_RANK": "1"}, (None, 1, None)),
    ],
    ids=str,
)
def test_rank_is_that_of_the_launcher_that_started_the_process(
    environment: dict[str, str], expected: tuple[int | None, int | None, int | None]
) -> None:
    found = placement(environment)
    assert (found.rank, found.local_rank, found.world_size) == expected
    assert (found.host, found.job) == (_HOST, "")


@pytest.mark.parametrize(
    ("environment", "job"),
    [
        ({"SLURM_JOB_ID": "8123", "TORCHELASTIC_RUN_ID": "mine"}, "8123"),
        ({"TORCHELASTIC_RUN_ID": "none"}, ""),
        ({"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": "2"}, "restart 2"),
        ({"SLURM_JOB_ID": "8123", "SLURM_RESTART_COUNT": "1", "TORCHELASTIC_RESTART_COUNT": "0"}, "8123 restart 1"),
    ],
    ids=str,
)
def test_job_is_what_the_scheduler_calls_it_and_which_restart_it_is(environment: dict[str, str], job: str) -> None:
    assert placement(environment).job == job

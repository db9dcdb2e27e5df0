"""Slurm as an engine, through Dask-Jobqueue: each job is a Dask worker, and all end with the build."""

from __future__ import annotations

from dask_jobqueue import SLURMCluster
from distributed import Client


def executor() -> Client:
    """Return what `--executor on_slurm:executor` asks for."""
    # What your site needs besides, as `queue="..."`, `account="..."`, `job_extra_directives=["..."]`, goes here or into
    # ~/.config/dask/jobqueue.yaml.
    cluster = SLURMCluster(n_workers=2, cores=8, processes=1, memory="16GB", walltime="01:00:00")
    client = cluster.get_client()
    client.wait_for_workers(1, timeout=1800)  # seconds that no job may start; then the build ends
    return client

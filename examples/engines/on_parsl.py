"""Parsl as an engine: its high-throughput executor, here with processes of this machine."""

from __future__ import annotations

import tempfile
from concurrent.futures import Executor

from parsl import Config, HighThroughputExecutor
from parsl.concurrent import ParslPoolExecutor
from parsl.providers import LocalProvider


def executor() -> Executor:
    """Return what `--executor on_parsl:executor` asks for."""
    # On a cluster: `SlurmProvider`, `KubernetesProvider`, ... of parsl.providers.
    workers = HighThroughputExecutor(max_workers_per_node=2, provider=LocalProvider(init_blocks=1, max_blocks=1))
    return ParslPoolExecutor(Config(executors=[workers], run_dir=tempfile.mkdtemp(prefix="parsl-")))

"""Real Dask clusters on this machine: a scheduler and workers, each a process that can be killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_START_S = 120


@dataclass
class Cluster:
    """A scheduler and its workers; `engine` is what `--executor` calls it."""

    folder: Path
    scheduler: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def engine(self) -> str:
        address = json.loads((self.folder / "scheduler.json").read_text())["address"]
        return str(address).replace("tcp://", "dask://")

    def add(self, environment: Mapping[str, str], threads: int = 1) -> subprocess.Popen[bytes]:
        """Start a worker with no nanny: if it is killed, it stays dead."""
        options = ["--no-nanny", "--no-dashboard", "--nthreads", str(threads), "--death-timeout", "60"]
        worker = _start(self.folder, "worker", environment, *options)
        self.workers.append(worker)
        return worker

    def wait_for(self, workers: int) -> None:
        """Wait until the scheduler knows so many workers."""
        with self._client() as client:
            client.wait_for_workers(workers, timeout=_START_S)

    def addresses(self) -> dict[int, str]:
        """Return what the scheduler calls each worker, by its process."""
        with self._client() as client:
            return {process: address for address, process in client.run(os.getpid).items()}

    def _client(self) -> Any:
        from distributed import Client

        return Client(scheduler_file=str(self.folder / "scheduler.json"), set_as_default=False)

    def end(self) -> None:
        """Kill all of it."""
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


def _start(folder: Path, what: str, environment: Mapping[str, str], *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--scheduler-file", str(folder / "scheduler.json")]
    with (folder / f"{what}-{time.monotonic_ns()}.log").open("wb") as log:
        return subprocess.Popen(
            [*command, *options], env={**os.environ, **environment}, cwd=folder, stdout=log, stderr=log
        )


@contextmanager
def cluster(folder: Path, *environments: Mapping[str, str]) -> Iterator[Cluster]:
    """Yield a cluster with a worker of one thread for each environment."""
    folder.mkdir(exist_ok=True)
    scheduler = _start(folder, "scheduler", {}, "--port", "0", "--host", "127.0.0.1", "--no-dashboard")
    made = Cluster(folder, scheduler)
    try:
        deadline = time.monotonic() + _START_S
        while not (folder / "scheduler.json").exists():
            assert scheduler.poll() is None, "the scheduler has ended"
            assert time.monotonic() < deadline, "the scheduler does not start"
            time.sleep(0.05)
        for environment in environments:
            made.add(environment)
        if environments:
            made.wait_for(len(environments))
        yield made
    finally:
        made.end()

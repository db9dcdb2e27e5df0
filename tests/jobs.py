"""Starting jobs: as processes from scratch, and forked from one that has imported FlashAttention-4 already."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import fake_job
from fa4_precompile.precompile.compile.pool import ForkServerPool
from fake_job import Call, Report
from product import Finished

T = TypeVar("T")

# What FlashAttention-4 and the DSL have to be told of a GPU that is not there.
B200 = {"FLASH_ATTENTION_ARCH": "sm_100", "CUTE_DSL_ARCH": "sm_100a", "FLASH_ATTENTION_NUM_SMS": "148"}

# What is looked up then finds what is on disk at that moment. Tests of preloading ask for it.
_LAZY = {"FA4_PRECOMPILE_PRELOAD": "0"}

_FOREIGN = ("CUTE_DSL_", "FA4_PRECOMPILE_", "FA_", "FLASH_ATTENTION_", "QUACK_")
FINDS_TESTS = {"PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))}
_TIME_LIMIT_S = 300


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a job for a B200: nothing of the shell's that FlashAttention or the loader read."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    return {**own, **B200, **_LAZY, **FINDS_TESTS, **changes}


def command(calls: Sequence[Call]) -> list[str]:
    """Return the command of a job that makes calls. What it prints last is its report."""
    return [sys.executable, fake_job.__file__, json.dumps([asdict(call) for call in calls])]


def run_from_scratch(command: Sequence[str], **changes: str) -> Finished:
    """Run a command in the environment of a job."""
    done = subprocess.run(
        command,
        env=environment(**changes),
        cwd="/",  # not in the repository: Python would take what is there for what is installed
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIME_LIMIT_S,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def report_of(job: Finished) -> Report:
    """Return the report of a job that has ended well."""
    assert job.code == 0, job.err
    return Report.parse(job.out.splitlines()[-1])


class Jobs:
    """Runs tasks as jobs for a B200, each in a process forked from one that has imported FlashAttention-4.

    The imports take seconds, and a lookup milliseconds. No loader is installed; a task installs its own.
    """

    def __init__(self, pool: ForkServerPool) -> None:
        self._pool = pool

    def start(self, task: Callable[..., T], *arguments: object) -> Future[T]:
        """Start a task in a process of its own."""
        return self._pool.submit(task, *arguments)

    def run(self, task: Callable[..., T], *arguments: object) -> T:
        """Run a task in a process of its own and return what it returns; what it raises fails the test."""
        return self.start(task, *arguments).result(_TIME_LIMIT_S)


def pool_of_jobs(prepare: Callable[[], None]) -> ForkServerPool:
    """Return the pool behind `Jobs`: as many processes at once as the tests start."""
    unset = dict.fromkeys(f"{prefix}*" for prefix in _FOREIGN)
    return ForkServerPool(16, prepare, (), {**unset, **B200, **_LAZY, **FINDS_TESTS})

"""What the tests of `on_miss="store"` run in jobs."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import fa4_precompile
import fake_job
from fa4_precompile.loader.behavior import Behavior
from fa4_precompile.loader.choices import OnMiss
from fa4_precompile.loader.keep import JobKeeper
from fa4_precompile.loader.loader import Loader
from fa4_precompile.loader.resolve import Cache
from fake_job import Call, Report
from pool_tasks import wait_for_company


def job_in_company(folder: Path, count: int, call: Call, root: Path) -> Report:
    """Make a call as soon as there are so many processes that do."""
    fa4_precompile.install(root, on_miss="store")
    wait_for_company(str(folder), count)
    return fake_job.report_on([call])


def job_that_waits(root: Path, call: Call, seconds: float) -> Report:
    """Make a call, and wait so long for another process that compiles what it needs."""
    behavior = Behavior(OnMiss.STORE, os.environ, keeper=lambda cache: JobKeeper(cache, seconds))
    Loader([Cache([root])], behavior).start()
    return fake_job.report_on([call])


def job_with_a_full_disk(root: Path, call: Call) -> Report:
    """Make a call where the disk takes small files, and none of a kernel's size."""
    real = os.fsync

    def full(descriptor: int) -> None:
        if os.fstat(descriptor).st_size > 1000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    fa4_precompile.install(root, on_miss="store")
    with mock.patch("os.fsync", full):
        return fake_job.report_on([call])


def job_without_locks(root: Path, call: Call) -> Report:
    """Make a call where the filesystem has no locks."""
    fa4_precompile.install(root, on_miss="store")
    with mock.patch("fcntl.flock", side_effect=OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))):
        return fake_job.report_on([call])


def job_whose_compiler_fails_once(root: Path, call: Call) -> tuple[str, bool, Report]:
    """Make a call for which the compiler raises, and make it again.

    Return what came of the first, whether the provider has its compiler back in the end, and a report on the second.
    """
    import cutlass.cute

    real, failures = cutlass.cute.compile, [MemoryError("no memory to compile in")]

    def fail_once(*arguments: Any, **options: Any) -> Any:
        if failures:
            raise failures.pop()
        return real(*arguments, **options)

    cutlass.cute.compile = fail_once
    fa4_precompile.install(root, on_miss="store")
    first = _raised(lambda: fake_job.make(call))
    report = fake_job.report_on([call])
    fa4_precompile.uninstall()
    return first, cutlass.cute.compile is fail_once, report


def _raised(function: Callable[[], Any]) -> str:
    try:
        function()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""

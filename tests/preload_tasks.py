"""What the tests of preloading run in jobs: loaders that are told, or not, what to load before it is needed."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from background_tasks import threads, until

import fa4_precompile
import fake_job
import loader_tasks
from fa4_precompile.errors import CacheError
from fake_job import Call, Report


@dataclass(frozen=True)
class Begun:
    """What an `install` that preloads did, and the calls after it.

    Attributes:
        preloaded: kernels that were loaded when it had returned and no thread was at work any more.
        at_once: those that were loaded when it returned.
        error: what it raised.
        report: of the calls.
    """

    preloaded: int
    at_once: int
    error: str
    report: Report


def install(
    root: Path, preload: str | bool | None, on_miss: str, environment: Mapping[str, str], calls: Sequence[Call]
) -> Begun:
    """Install a loader after FlashAttention was imported, wait for its thread, move the cache away, and make calls."""
    os.environ.pop("FA4_PRECOMPILE_PRELOAD")
    os.environ.update(environment)
    error, at_once = "", 0
    with fake_job.warnings_of_the_loader() as warnings:
        try:
            fa4_precompile.install(root, on_miss=on_miss, preload=preload)
            at_once = fa4_precompile.stats().preloaded
        except CacheError as raised:
            error = str(raised)
        until(lambda: not threads())
    preloaded = fa4_precompile.stats().preloaded
    if preloaded:
        root.rename(root.with_name("away"))
    report = fake_job.report_on(calls)
    return Begun(preloaded, at_once, error, Report(report.stats, report.missing, [*warnings, *report.warnings]))


def use(root: Path, report: Path, calls: Sequence[Call]) -> None:
    """Make calls in a process that writes a report as it ends."""

    def work() -> None:
        fa4_precompile.install(root, on_miss="error", report=report)
        fake_job.report_on(calls)

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join()


def uninstall_at_once(root: Path) -> dict[str, Any]:
    """Take a loader out while it preloads, put it in again, and tell what is left."""
    own = loader_tasks.slots()
    for _ in range(20):
        fa4_precompile.install(root, on_miss="error", preload="background")
        fa4_precompile.uninstall()
    is_given_back = all(slot is own[name] for name, slot in loader_tasks.slots().items())
    until(lambda: not threads())
    time.sleep(0.01)
    links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    left = [link for link in links if os.path.lexists(link) and os.readlink(link).startswith(str(root))]
    fa4_precompile.install(root, on_miss="error", preload="background")
    return {"given back": is_given_back, "left": left, "missing": fake_job.report_on(loader_tasks.SMALL).missing}

"""Ray as an engine: each call is a task of a Ray cluster. Ray has no `concurrent.futures.Executor` of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import ray


class RayExecutor(Executor):
    """Gives calls to the Ray that `RAY_ADDRESS` names, or to one that runs on this machine; else starts one."""

    def __init__(self) -> None:
        ray.init(log_to_driver=False, logging_level="ERROR")

    @property
    def num_workers(self) -> int:
        """How many calls run at a time. The build asks now and then."""
        return int(ray.cluster_resources().get("CPU", 0))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have it called where a CPU is free."""
        future: Future[Any] = _task(fn).remote(*args, **kwargs).future()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster. It ends what it does for us."""
        ray.shutdown()


@functools.cache
def _task(fn: Callable[..., Any]) -> Any:
    # No tries of Ray's own: the build counts what is lost, and tries elsewhere.
    return ray.remote(num_cpus=1, max_retries=0)(fn)


def executor() -> Executor:
    """Return what `--executor on_ray:executor` asks for."""
    return RayExecutor()

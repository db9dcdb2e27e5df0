"""Dask's `distributed` as an engine: its scheduler gives a call to another worker if one is lost."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from ...errors import MachineError
from .engine import Engine, words_of

if TYPE_CHECKING:
    from distributed import Client

T = TypeVar("T")

_CONNECT_S = 15


def open_dask(title: str, place: str, is_secure: bool) -> Engine:
    """Connect to a scheduler at `HOST:PORT`, or to the one of a scheduler file (a path). Raises `MachineError`."""
    try:
        from distributed import Client
    except ImportError as error:
        raise MachineError(
            f"`{title}` is a Dask scheduler, and the package `{error.name}` is not installed",
            "`pip install 'fa4-precompile[dask]'`",
        ) from None
    if place.startswith("/") and not os.path.isfile(place):  # for which a client would wait without end
        raise MachineError(
            f"`{title}`: there is no scheduler file `{place}`", "`dask scheduler --scheduler-file FILE` writes one"
        )
    where = (
        {"scheduler_file": place}
        if place.startswith("/")
        else {"address": f"{'tls' if is_secure else 'tcp'}://{place}"}
    )
    try:
        client = Client(**where, timeout=_CONNECT_S, set_as_default=False)
    except Exception as error:  # of its own, of TLS, of the network
        raise MachineError(
            f"no Dask scheduler answers at `{title}`: {words_of(error)}",
            "`dask scheduler` starts one, `dask worker HOST:PORT` a worker, on machines with the extras `build,dask`",
        ) from None
    return engine_of(title, client)


def engine_of(title: str, client: Client) -> Engine:
    """Return the engine of a client that is connected. It is closed at the end, and so is a cluster that it has."""
    there = _There(client)
    return Engine(
        title=title,
        submit=there.submit,
        workers=there.threads,
        is_lost=lambda: client.status not in ("running", "connecting"),
        close=lambda: _close(client),
    )


class _There:
    """A scheduler and its workers, by their addresses."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._executor = client.get_executor()
        self._threads: Mapping[str, int] = {}

    def threads(self) -> int:
        """Ask the scheduler how many threads all workers have."""
        self._threads = self._client.nthreads()
        return sum(self._threads.values())

    def submit(self, function: Callable[..., T], arguments: tuple[Any, ...], not_at: Collection[str]) -> Future[T]:
        """Give it to another worker than those, if there is one."""
        others = [address for address in self._threads if address not in not_at] if not_at else []
        # Equal calls are made again, not taken for the same one: the second try of a kernel is such a call.
        options = {"workers": others, "allow_other_workers": True} if others else {}
        future: Future[T] = self._executor.submit(function, *arguments, pure=False, **options)
        return future


def _close(client: Client) -> None:
    cluster = client.cluster
    with suppress(Exception):  # of a scheduler that is gone
        client.close(timeout=5)
    if cluster is not None:
        with suppress(Exception):  # of a batch system that is gone
            cluster.close(timeout=_CONNECT_S)

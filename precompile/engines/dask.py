"""Dask's `distributed` as an engine: its scheduler gives a call to another worker if one is lost."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from ...errors import MachineError
from .engine import Engine

if TYPE_CHECKING:
    from distributed import Client

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
    where = (
        {"scheduler_file": place}
        if place.startswith("/")
        else {"address": f"{'tls' if is_secure else 'tcp'}://{place}"}
    )
    try:
        client = Client(**where, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:  # a timeout is an `OSError`
        raise MachineError(
            f"no Dask scheduler answers at `{title}`: {error}",
            "`dask scheduler` starts one, `dask worker HOST:PORT` a worker, on machines with the extra `build`",
        ) from None
    return Engine(
        title=title,
        # Equal calls are made again, not taken for the same one: the second try of a kernel is such a call.
        executor=client.get_executor(pure=False),
        workers=lambda: sum(client.nthreads().values()),
        is_lost=lambda: client.status not in ("running", "connecting"),
        close=lambda: _close(client),
    )


def _close(client: Client) -> None:
    with suppress(Exception):  # of a scheduler that is gone
        client.close(timeout=5)

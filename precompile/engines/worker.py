"""The far side of an engine: a process that takes errands, and has fork servers of its own for them.

Whatever goes wrong with an errand, or with this machine, is an answer. Who can't take it says so after a pause that
grows, so that an engine which gives work to whoever is free gives it to others meanwhile.
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass

from ...cache.toolchain import Toolchain
from ...errors import Fa4PrecompileError, MachineError
from ...products.trial import Trial
from ...providers.call import Environment
from ...providers.installed import installed_toolchain
from ...providers.protocol import Provider
from ..buildable import require_buildable
from ..compile.compilers import fork_server_environment
from ..compile.pool import ForkServerPool, TaskFailed
from ..compile.worker import Pinned, load_provider
from ..spec.sources import module_digest
from .errand import Digested, Done, Errand, Kit, TurnedDown, Undone, digested
from .ourselves import ourselves

_IDLE_S = 300.0
"""A fork server that nobody has needed for so long is ended: it has half a gigabyte, and the machine is a cluster's."""

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 5.0


def run(theirs: str, errand: bytes, not_at: Collection[str]) -> Done | Undone | TurnedDown:
    """Do an errand of a build that has this version of the package, and is not kept from these workers.

    An engine's workers call this by its name. It raises nothing.
    """
    return _WORKER.run(theirs, errand, not_at)


class Worker:
    """What one process of an engine has. Used by as many threads as the engine likes: each waits for one child."""

    def __init__(self, idle_s: float = _IDLE_S) -> None:
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._servers: dict[_Setting, _Server] = {}
        self._toolchains: dict[tuple[Provider, str], Toolchain] = {}
        self._turned_down = 0
        self._trying = threading.Lock()
        self._trial = Trial()

    def run(self, theirs: str, errand: bytes, not_at: Collection[str]) -> Done | Undone | TurnedDown:
        """Do an errand, as the function of the module."""
        where = _name()
        if where in not_at:
            return self._turn_down(where, "")
        if theirs != (ours := ourselves()):
            return self._turn_down(where, f"the source of fa4-precompile is {ours} there, {theirs} here")
        try:
            return self._done(where, pickle.loads(errand))
        except TaskFailed as error:
            return Undone(where, error.reason, error.report)
        except MachineError as error:
            return self._turn_down(where, str(error))
        except Fa4PrecompileError as error:
            return Undone(where, str(error), str(error))
        except Exception as error:
            return Undone(where, f"{type(error).__name__}: {error}", traceback.format_exc())

    def _turn_down(self, where: str, reason: str) -> TurnedDown:
        with self._lock:
            pause = min(_FIRST_PAUSE_S * 2**self._turned_down, _LONGEST_PAUSE_S)
            self._turned_down = min(self._turned_down + 1, 10)
        time.sleep(pause)
        return TurnedDown(where, reason)

    def _done(self, where: str, errand: Errand) -> Done:
        self._require_fit(errand.kit)
        self._turned_down = 0
        setting = _Setting(errand.kit.pinned, errand.environment, frozenset(errand.kit.time_limits.items()))
        server = self._server(setting, errand.kit)
        try:
            value, digest = server.pool.submit(Digested(errand.function), *errand.arguments).result()
        except MachineError:
            self._end(setting, server)
            raise
        finally:
            self._leave(setting, server)
        if errand.then is not None:
            value, digest = digested(errand.then(pickle.loads(value), errand.arguments, self._require_loads))
        return Done(where, value, digest)

    def _require_loads(self, blob: bytes, symbol: str) -> None:
        with self._trying:
            self._trial.require_loads(blob, symbol)

    def _require_fit(self, kit: Kit) -> None:
        """Raise `MachineError`, with the field that differs, unless what compiles here is what is there."""
        require_buildable(kit.pinned.target)
        toolchain = self._toolchain(kit.pinned.provider, kit.pinned.target.machine)
        differences = [
            f"{name} is {_shown(here)} there, {_shown(theirs)} here"
            for name, here, theirs in toolchain.differences(kit.toolchain)
        ]
        differences += [
            f"module `{module}` is another there"
            for module, digest in kit.sources.items()
            if module_digest(module) != digest
        ]
        if differences:
            raise MachineError("; ".join(differences), "")

    def _toolchain(self, provider: Provider, machine: str) -> Toolchain:
        """Return what was installed when it was first asked for: what this process has imported stays as it is."""
        if (provider, machine) not in self._toolchains:
            self._toolchains[provider, machine] = installed_toolchain(provider, machine)
        return self._toolchains[provider, machine]

    def _server(self, setting: _Setting, kit: Kit) -> _Server:
        with self._lock:
            server = self._servers.get(setting)
            if server is None:
                server = self._servers[setting] = _Server(_fork_server(setting, kit))
            server.users += 1
        return server

    def _leave(self, setting: _Setting, server: _Server) -> None:
        with self._lock:
            server.users -= 1
            server.left = time.monotonic()
            if server.watch is None:
                self._watch(setting, server, self._idle_s)

    def _watch(self, setting: _Setting, server: _Server, seconds: float) -> None:
        """Look after some seconds whether a fork server is idle, as long as there is one."""
        server.watch = threading.Timer(seconds, self._end_if_idle, (setting, server))
        server.watch.daemon = True
        server.watch.start()

    def _end_if_idle(self, setting: _Setting, server: _Server) -> None:
        with self._lock:
            idle_s = 0.0 if server.users else time.monotonic() - server.left
            if idle_s < self._idle_s:
                self._watch(setting, server, self._idle_s - idle_s)
                return
        self._end(setting, server)

    def _end(self, setting: _Setting, server: _Server) -> None:
        with self._lock:
            if self._servers.get(setting) is server:
                del self._servers[setting]
        server.pool.shutdown(wait=False)


def _name() -> str:
    """Return what this worker is called: by its engine, if that is one which can be told to avoid it; else by us."""
    if distributed := sys.modules.get("distributed"):
        with suppress(ValueError):  # imported, but this is none of its workers
            return str(distributed.get_worker().address)
    return f"{socket.gethostname()}:{os.getpid()}"


@dataclass(frozen=True)
class _Setting:
    """What a fork server is started for."""

    pinned: Pinned
    environment: Environment
    time_limits: frozenset[tuple[Callable[..., object], float]]


@dataclass(eq=False)
class _Server:
    pool: Executor
    users: int = 0
    left: float = 0.0
    watch: threading.Timer | None = None


def _fork_server(setting: _Setting, kit: Kit) -> ForkServerPool:
    """Return a pool with no limit of its own: how many tasks are here at a time is the engine's to say."""
    return ForkServerPool(
        sys.maxsize,
        load_provider,
        (setting.pinned, kit.toolchain.dsl_cuda),
        fork_server_environment(setting.pinned.provider, setting.pinned.target, setting.environment),
        {Digested(function): limit for function, limit in setting.time_limits},
    )


def _shown(value: object) -> str:
    return "absent" if value is None else f"`{str(value)[:40]}`"


_WORKER = Worker()

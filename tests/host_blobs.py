"""Kernels that the product has built for hosts of two kinds, with the calls that FlashAttention makes of them."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from host_records import COMPILERS, RUNNERS
from host_tasks import Launch, launches_of

from fa4_precompile.cache.key import KeyText
from fa4_precompile.cache.outcome import Finding
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.target import host_machine
from fa4_precompile.precompile.compile.compilers import fork_server_environment
from fa4_precompile.precompile.compile.pool import ForkServerPool
from fa4_precompile.precompile.spec.spec import read_spec, target_book
from fa4_precompile.providers.dsl.cross import CROSS_COMPILER
from fa4_precompile.providers.registry import DEFAULT
from jobs import FINDS_TESTS
from product import records, run

SPECS = Path(__file__).parent / "hosts"


@dataclass(frozen=True)
class Blob:
    """A blob, and the symbol of its kernel."""

    path: Path
    symbol: str


@dataclass(frozen=True)
class Built:
    """A kernel that a call launches, and its blobs by the machine of their hosts."""

    launch: Launch
    blobs: Mapping[str, Blob]


def lacking() -> str:
    """Return what this machine lacks to build for another host and to run what it built, empty if nothing."""
    if host_machine() != "x86_64":
        return "an x86_64 machine"
    commands = [command[0] for command in [*COMPILERS.values(), *RUNNERS.values()] if command]
    missing = [name for name in commands if not shutil.which(name)]
    return ", ".join(missing if importlib.util.find_spec(CROSS_COMPILER) else [*missing, CROSS_COMPILER])


def build_for_both(spec: Path, cache: Path) -> list[Built]:
    """Build a spec for its two targets into a cache, and return its kernels in the order in which they are launched.

    A kernel's id tells its host; what is one kernel for FlashAttention has one slot and key.
    """
    done = run("build", spec, "--cache", cache)
    assert done.code == 0, done.err
    found: dict[tuple[str, KeyText], dict[str, Blob]] = {}
    machines = _machines(Root(cache))
    for record in records(cache):
        of_hosts = found.setdefault((record.slot, record.key), {})
        machine = machines[record.toolchain]
        assert machine not in of_hosts, record
        of_hosts[machine] = Blob(Root(cache).blob_path(record), record.symbol)
    return [Built(launch, found[launch.slot, launch.key]) for launch in _launches(spec)]


def _machines(root: Root) -> Mapping[str, str]:
    found = {}
    for toolchain in root.toolchains():
        assert not isinstance(toolchain, Finding), toolchain
        found[toolchain.id] = toolchain.machine
    return found


def _launches(spec: Path) -> list[Launch]:
    target = read_spec(spec, target_book()).targets[0]
    environment = {**fork_server_environment(DEFAULT, target), **FINDS_TESTS}
    with ForkServerPool(1, _leave_to_the_task, (), environment) as pool:
        return pool.submit(launches_of, spec, target).result()


def _leave_to_the_task() -> None:
    """Import nothing: there is one task."""

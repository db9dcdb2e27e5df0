"""Kernels built for both kinds of hosts, on this one.

Until the product builds for another host, this compiles once and makes both blobs of what came out.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fa4_precompile.cache.key import KeyText, encode_key
from fa4_precompile.cache.target import Target
from fa4_precompile.precompile.compile.compilers import fork_server_environment
from fa4_precompile.precompile.compile.pool import ForkServerPool
from fa4_precompile.precompile.spec.spec import read_spec, target_book
from fa4_precompile.products import link
from fa4_precompile.products.load import INITIALIZER_SUFFIX, SYMBOL_PREFIX
from fa4_precompile.products.product import exported
from fa4_precompile.providers.call import Call
from fa4_precompile.providers.loaded import loaded_slots
from fa4_precompile.providers.registry import DEFAULT
from fa4_precompile.providers.slots import StandInSlot, slots_replaced
from host_tasks import Launch, launches_of

MACHINES = ("x86_64", "aarch64")


@dataclass(frozen=True)
class Blob:
    """A blob, and the symbol of its kernel."""

    path: Path
    symbol: str


@dataclass(frozen=True)
class Built:
    """A kernel that a call launches, built for each kind of host."""

    launch: Launch
    blobs: Mapping[str, Blob]


def lacking() -> str:
    """Return what this machine lacks to build for another host and to run what it built, empty if nothing."""
    commands = [name for name in ("gcc", "aarch64-linux-gnu-gcc", "qemu-aarch64") if not shutil.which(name)]
    packages = [name for name in ("ziglang",) if not importlib.util.find_spec(name)]
    return ", ".join(commands + packages)


def build_for_both(spec: Path, target: str, folder: Path) -> list[Built]:
    """Build what the calls of a spec launch, for both hosts of a target, and return it in the order of the launches."""
    pinned = target_book().get(target)
    search = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    environment = {**fork_server_environment(DEFAULT, pinned), "PYTHONPATH": search}
    with ForkServerPool(1, _prepare, (), environment) as pool:
        launches = pool.submit(launches_of, spec, pinned).result()
        blobs = pool.submit(_compile, spec, pinned, folder).result()
    return [Built(launch, blobs[launch.slot, launch.key]) for launch in launches]


def _prepare() -> None:
    """Leave the imports to the tasks."""


def _compile(spec: Path, target: Target, folder: Path) -> Mapping[tuple[str, KeyText], Mapping[str, Blob]]:
    live = DEFAULT.go_live(target)
    found: dict[tuple[str, KeyText], Mapping[str, Blob]] = {}

    def slot(name: str) -> StandInSlot:
        def identity(key: object) -> tuple[str, KeyText]:
            return name, encode_key(key, passing=DEFAULT.passing)

        def keep(key: object, function: Any) -> None:
            found[identity(key)] = _both(function, f"kernel_{len(found)}", folder)

        return StandInSlot(lambda key: identity(key) in found, keep)

    for variant in read_spec(spec, target_book()).variants:
        with slots_replaced(loaded_slots(DEFAULT), slot):
            live.call(Call(variant))
    return found


def _both(function: Any, symbol: str, folder: Path) -> Mapping[str, Blob]:
    blobs = {machine: Blob(folder / f"{symbol}-{machine}.so", symbol) for machine in MACHINES}
    ir = folder / f"{symbol}.ll"
    function.export_to_c(object_file_path=str(ir), function_name=symbol)
    blobs["aarch64"].path.write_bytes(_cross_linked(ir, symbol, folder))
    with exported(function, symbol) as object_file:
        blobs["x86_64"].path.write_bytes(link.link(object_file, symbol))
    return blobs


def _cross_linked(ir: Path, symbol: str, folder: Path) -> bytes:
    """Return the shared object for aarch64 made of a kernel's LLVM IR, with its initializer."""
    zig = _zig()
    initializer = symbol + INITIALIZER_SUFFIX
    (folder / "exports").write_text(f"{{ global: {SYMBOL_PREFIX}{symbol}; {initializer}; local: *; }};\n")
    (folder / "initializer.c").write_text(
        link._INITIALIZER.format(internal=link._INTERNAL_PREFIX + symbol, initializer=initializer)
    )
    for source, made in ((str(ir), "kernel.o"), ("initializer.c", "initializer.o")):
        command = [zig, "clang", "-target", "aarch64-linux-gnu", "-c", "-O2", "-fPIC", "-w", source, "-o", made]
        subprocess.run(command, cwd=folder, check=True)
    flags: Sequence[str] = ["-shared", "--build-id=none", "--version-script=exports"]
    wraps = [f"--wrap={name}" for name in link._ONCE]
    command = [zig, "ld.lld", *flags, *wraps, "kernel.o", "initializer.o", "-o", "kernel.so"]
    subprocess.run(command, cwd=folder, check=True)
    return (folder / "kernel.so").read_bytes()


def _zig() -> str:
    found = importlib.util.find_spec("ziglang")
    assert found is not None
    assert found.origin is not None
    return str(Path(found.origin).parent / "zig")

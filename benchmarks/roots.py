"""What a job's lookup takes with many roots, beside as many failed opens of a file in as many folders.

    python benchmarks/roots.py [--roots 10 100 1000]

Each root is a cache of two functions that the C compiler made, the last one of those that are looked up. What that one
takes by itself, which is mostly loading, is taken off. A failed open is Python's `os.open` of where the record would
be. Everything is in the page cache. What is measured is the thread's CPU time, by turns in one process; medians.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rows import Row

from fa4_precompile.cache import layout
from fa4_precompile.cache.key import BlobDigest, encode_key, kernel_id, symbol_of
from fa4_precompile.cache.outcome import Miss
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.record import Record, Selection
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.toolchain import Toolchain, abi
from fa4_precompile.loader.kernel import Kernel
from fa4_precompile.loader.resolve import Cache
from fa4_precompile.providers.dsl.driver import Device
from fa4_precompile.providers.installed import installed_run_time
from fa4_precompile.providers.registry import DEFAULT

_SLOT = "fwd"
_DEVICE = Device(0, "a made-up B200", "sm_100a", 148)
_NOWHERE = range(20)
_IN_EACH = range(100, 102)
_IN_THE_LAST = range(200, 220)
_TURNS = 9
_SOURCE = "int __tvm_ffi_{0}(void *a, void *b, int c, void *d) {{ return 0; }} int {0}_init(void) {{ return 0; }}\n"


def rows(counts: Sequence[int] = (10, 100, 1000)) -> Iterator[Row]:
    """Measure with so many roots each; medians."""
    toolchain = _toolchain()
    with tempfile.TemporaryDirectory(prefix="fa4-roots-") as name:
        folder = Path(name)
        _make_root(folder / "each", toolchain, _IN_EACH)
        _make_root(folder / "last", toolchain, _IN_THE_LAST)
        others = [folder / f"root-{number}" for number in range(max(counts) - 1)]
        for other in others:
            shutil.copytree(folder / "each", other)
        _measured([folder / "last"], toolchain)  # loads all functions, and the run-time library
        for count in counts:
            yield from _of_roots([*others[: count - 1], folder / "last"], toolchain)


def _of_roots(roots: Sequence[Path], toolchain: Toolchain) -> Iterator[Row]:
    turns = [(_measured(roots, toolchain), _measured(roots[-1:], toolchain)) for _ in range(_TURNS)]
    opens = statistics.median(all_of_them["opens"] for all_of_them, _ in turns)
    name = f"{len(roots):,} roots"
    yield Row(f"{name}: failed opens", opens * 1e6, "us")
    for what in ("the start", "first lookup", "next lookup", "miss in all"):
        took = statistics.median(all_of_them[what] - last[what] for all_of_them, last in turns)
        yield Row(f"{name}: {what}", took * 1e6, "us")
        yield Row(f"{name}: {what} / opens", took / opens * len(roots) / max(1, len(roots) - 1), "")


def _measured(roots: Sequence[Path], toolchain: Toolchain) -> dict[str, float]:
    """Return the seconds that a new cache takes for its first look at its roots, and for lookups."""
    cache = Cache(roots)
    cache.keep_folders()
    first, *others = _IN_THE_LAST
    try:
        return {
            "the start": _start(cache),
            "first lookup": _look_up(cache, first, Kernel),
            "next lookup": statistics.median(_look_up(cache, number, Kernel) for number in others),
            "miss in all": statistics.median(_look_up(cache, number, Miss) for number in _NOWHERE),
            "opens": statistics.median(_failed_opens(roots, toolchain, number) for number in _NOWHERE),
        }
    finally:
        cache.close()


def _start(cache: Cache) -> float:
    begin = time.thread_time()
    cache.prepare()  # as a loader does
    return time.thread_time() - begin


def _look_up(cache: Cache, number: int, expected: type) -> float:
    begin = time.thread_time()
    found = cache.resolve(_SLOT, (number,), _DEVICE)
    took = time.thread_time() - begin
    assert isinstance(found, expected), found
    return took


def _failed_opens(roots: Sequence[Path], toolchain: Toolchain, number: int) -> float:
    relative = layout.record_path(toolchain.id, kernel_id(toolchain.id, _DEVICE.arch, _SLOT, encode_key((number,)), {}))
    paths = [f"{root}/{relative}" for root in roots]

    begin = time.thread_time()
    for path in paths:
        try:
            os.open(path, os.O_RDONLY)
        except FileNotFoundError:  # `suppress` would take as long again
            pass
    return time.thread_time() - begin


def _toolchain() -> Toolchain:
    here = installed_run_time(DEFAULT)
    tvm_ffi = f"{abi(here.tvm_ffi)}.99"
    return Toolchain(DEFAULT.name, "made up", here.provider_source, {}, {}, 13, tvm_ffi, here.machine, {}, {})


def _make_root(path: Path, toolchain: Toolchain, numbers: Iterable[int]) -> None:
    """Make a root of functions that have numbers for keys; all are in one blob."""
    keys = {number: encode_key((number,)) for number in numbers}
    symbols = [symbol_of(kernel_id(toolchain.id, _DEVICE.arch, _SLOT, key, {})) for key in keys.values()]
    library = path.with_suffix(".so")
    command = ["cc", "-shared", "-fPIC", "-nostartfiles", "-x", "c", "-", "-o", str(library)]
    subprocess.run(command, input="".join(map(_SOURCE.format, symbols)), text=True, check=True)
    blob = library.read_bytes()
    digest = BlobDigest(hashlib.sha256(blob).hexdigest())
    publisher, selection = Publisher(Root(path)), Selection("MadeUp", "generic", 1, {})
    publisher.create()
    publisher.publish_toolchain(toolchain)
    for number, key in keys.items():
        fields = {"number": number}
        publisher.publish(
            Record(toolchain.id, _DEVICE.arch, _SLOT, key, fields, {}, selection, digest, len(blob), "c" * 64, 1, []),
            blob,
        )


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--roots", type=int, nargs="+", default=[10, 100, 1000], metavar="N")
    for row in rows(parser.parse_args().roots):
        print(row.line(), flush=True)


if __name__ == "__main__":
    _main()

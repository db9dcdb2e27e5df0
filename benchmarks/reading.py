"""What it takes to read a large cache: a build with nothing to do, `--help`, `ls` and `verify` as whole processes.

    python benchmarks/reading.py CACHE

CACHE has the quickstart built. Of its kernels a cache of 20,000 records is made in a temporary folder, with keys and
blobs changed so that it is consistent; most of its blobs have some bytes only, so that what a record takes shows.
What the bytes take is measured in a second cache, of blobs as they are. CPU seconds are those of user and system.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rows import Row, print_rows_of_cache

from fa4_precompile.cache import layout
from fa4_precompile.cache.key import BlobDigest, KeyText
from fa4_precompile.cache.record import Record
from fa4_precompile.cache.store import Root

_RECORDS = 20_000
_WHOLE_BLOBS = 4_000
_RUNS = 3


def rows(cache: Path) -> list[Row]:
    """Measure in caches that are made of a built one; medians."""
    with tempfile.TemporaryDirectory(prefix="fa4-reading-") as folder:
        large, whole = Path(folder, "large"), Path(folder, "whole")
        multiply(cache, large, _RECORDS, lambda blob, number: b"%d" % number)
        added = multiply(cache, whole, _WHOLE_BLOBS, lambda blob, number: blob + b"%d" % number)

        def measured(*arguments: str | Path) -> tuple[float, float]:
            return _measured(arguments, Path(folder, "bytecode"))

        begun = measured("--version")
        build = measured("build", "quickstart", "--quiet", "--cache", large)
        listed, verified = measured("ls", "--cache", large), measured("verify", "--cache", large)
        record = (verified[0] - begun[0]) / _RECORDS
        of_bytes = measured("verify", "--cache", whole)[0] - begun[0] - _WHOLE_BLOBS * record
        return [
            *_both(f"nothing to do, {_RECORDS:,} records", build),
            *_both("--help", measured("--help")),
            *_both(f"ls, {_RECORDS:,} records", listed),
            *_both(f"verify, {_RECORDS:,} records", verified),
            Row("verify, a record", record * 1e3, "ms CPU"),
            Row("verify, blob bytes", added / 1e9 / of_bytes, "GB/s a core"),
        ]


def _both(name: str, measured: tuple[float, float]) -> Iterator[Row]:
    for value, unit in zip(measured, ("CPU s", "s wall"), strict=True):
        yield Row(name, value, unit)


def multiply(cache: Path, copy: Path, count: int, change: Callable[[bytes, int], bytes]) -> int:
    """Copy a cache, and add records until it has so many; returns the bytes of the blobs that were added."""
    shutil.copytree(cache, copy)
    root, added = Root(cache), 0
    kernels = [(record, root.blob(record)) for record in root.records() if isinstance(record, Record)]
    for number, (record, blob) in zip(range(count - len(kernels)), itertools.cycle(kernels), strict=False):
        content = change(blob, number)
        named = BlobDigest(hashlib.sha256(content).hexdigest())
        other = replace(record, key=KeyText(f"({record.key},i{number})"), blob=named, blob_bytes=len(content))
        _write(copy / layout.blob_path(named), content)
        _write(copy / layout.record_path(other.toolchain, other.id), other.render_file())
        added += len(content)
    return added


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)


def _measured(arguments: Sequence[str | Path], bytecode: Path) -> tuple[float, float]:
    """Return the CPU and the wall seconds of a command, with modules compiled as an installer leaves them."""
    program = "import sys; from fa4_precompile.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(bytecode)
    found = []
    for _ in range(1 + _RUNS):
        before, start = _cpu_of_children(), time.monotonic()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        wall, cpu = time.monotonic() - start, _cpu_of_children() - before
        if done.returncode != 0:
            sys.exit(f"`{' '.join(command[3:])}` ended with {done.returncode}: {done.stderr}")
        found.append((cpu, wall))
    cpus, walls = zip(*found[1:], strict=True)  # the first reads from the disk, and compiles modules
    return statistics.median(cpus), statistics.median(walls)


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    print_rows_of_cache(__doc__, rows)

"""What it takes to pack a cache and to unpack it, beside `tar` with the same compressor.

    python benchmarks/packing.py CACHE

CACHE has the quickstart built. Of its kernels a cache of 1,000 is made in a temporary folder. A copy of a blob has each
byte changed by a number of its own: what is alike in a kernel stays so, and no two copies are alike, as `tar` would
profit from.

The commands are whole processes, and `tar` and `zstd` those of this machine; all read what the system has in memory.
`tar` leaves it to the system when its files get to the disk, and `unpack` ends when they are there: so `tar` is
measured with a `sync` of the filesystem behind it, too.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from reading import multiply
from rows import Row, print_rows_of_cache

from fa4_precompile.carry.zstd import LEVEL

_KERNELS = 1_000
_KINDS = 20  # and some more there are in the quickstart
_RUNS = 3


def rows(cache: Path) -> list[Row]:
    """Measure, in a cache that is made of a built one; medians."""
    with tempfile.TemporaryDirectory(prefix="fa4-packing-") as folder:
        whole, pack, tar, out = (Path(folder, name) for name in ("cache", "pack.tar.zst", "tar.zst", "out"))
        multiply(cache, whole, _KERNELS, _changed)
        size = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file())

        def seconds(command: str) -> float:
            return _seconds(command, out)

        ours = f"{sys.executable} -c 'from fa4_precompile.cli import main; main()'"
        packed = seconds(f"{ours} pack --force {pack} --cache {whole}")
        tarred = seconds(f"tar -C {whole} -cf - . | zstd -q -f -{LEVEL} -T1 -o {tar}")
        unpacked = seconds(f"{ours} unpack {pack} --cache {out}")
        untarred = seconds(f"mkdir {out} && zstd -qdc {tar} | tar -C {out} -xf -")
        synced = seconds(f"mkdir {out} && zstd -qdc {tar} | tar -C {out} -xf - && sync -f {out}")
        return [
            Row(f"pack, {_KERNELS:,} kernels", size / 1e6 / packed, "MB/s"),
            Row(f"tar | zstd -{LEVEL}", size / 1e6 / tarred, "MB/s"),
            Row("pack, to tar", tarred / packed, "times the speed"),
            Row("pack, to tar, size", pack.stat().st_size / tar.stat().st_size, "times the bytes"),
            Row(f"unpack, {_KERNELS:,} kernels", size / 1e6 / unpacked, "MB/s"),
            Row("zstd -d | tar", size / 1e6 / untarred, "MB/s"),
            Row("zstd -d | tar, and sync", size / 1e6 / synced, "MB/s"),
            Row("unpack, to tar", untarred / unpacked, "times the speed"),
            Row("unpack, to tar and sync", synced / unpacked, "times the speed"),
        ]


def _changed(blob: bytes, number: int) -> bytes:
    mask = number // _KINDS % 255 + 1
    return blob.translate(bytes(byte ^ mask for byte in range(256))) + b"%d" % number


def _seconds(command: str, out: Path) -> float:
    """Return what a command takes that may write to a folder, which is not there before."""
    found = []
    for _ in range(1 + _RUNS):
        shutil.rmtree(out, ignore_errors=True)
        subprocess.run(["sync"], check=True)
        start = time.monotonic()
        done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
        found.append(time.monotonic() - start)
        if done.returncode != 0:
            sys.exit(f"`{command}` ended with {done.returncode}: {done.stderr}")
    return statistics.median(found[1:])  # the first reads from the disk, and compiles modules


if __name__ == "__main__":
    print_rows_of_cache(__doc__, rows)

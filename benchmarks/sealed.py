"""Lookups in a sealed and signed cache beside a plain one, and what the seal costs a process once.

`python benchmarks/sealed.py CACHE`: a cache of real kernels. It is copied; the copies are read by turns.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from fa4_precompile.cache.listing import list_contents
from fa4_precompile.cache.outcome import Hit
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.record import Record
from fa4_precompile.cache.seal import Vouchers
from fa4_precompile.cache.signature import sign
from fa4_precompile.cache.store import Root

_ROUNDS = 60


def _seconds(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def _look_up(root: Root, records: Iterable[Record]) -> None:
    for record in records:
        assert isinstance(root.find(record.toolchain, record.id), Hit)


def main() -> None:
    """Print medians and ratios."""
    with tempfile.TemporaryDirectory() as folder:
        plain, sealed = Path(folder, "plain"), Path(folder, "sealed")
        for copy in (plain, sealed):
            shutil.copytree(sys.argv[1], copy)
        private, public = Path(folder, "key.pem"), Path(folder, "key.pub")
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
        subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
        contents = list_contents(Root(sealed))
        Publisher(Root(sealed)).publish_seal(contents.render(), sign(contents.fingerprint, private, str))
        records = [item for item in Root(plain).records() if isinstance(item, Record)]
        roots = {
            "plain": Root(plain),
            "sealed": Root(sealed),
            "sealed, expected": Root(sealed, vouchers=Vouchers(frozenset({contents.fingerprint}))),
            "sealed and signed": Root(sealed, vouchers=Vouchers(keys=(public,))),
        }
        once = {name: _seconds(root.look_at_layout) for name, root in roots.items()}
        for root in roots.values():
            root.keep_folders()
        taken: dict[str, list[float]] = {name: [] for name in roots}
        for _ in range(_ROUNDS):
            for name, root in roots.items():
                taken[name].append(_seconds(partial(_look_up, root, records)))
    base = statistics.median(taken["plain"])
    print(f"{len(records)} kernels, {len(contents.entries)} files; medians of {_ROUNDS} rounds by turns")
    for name, seconds in taken.items():
        median = statistics.median(seconds)
        print(
            f"{name:18} {median / len(records) * 1e6:7.1f} us a lookup, {median / base:.3f} of plain; "
            f"first look at the root {once[name] * 1e3:.2f} ms"
        )


if __name__ == "__main__":
    main()

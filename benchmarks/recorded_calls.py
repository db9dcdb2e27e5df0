"""What recording adds to a steady call: the same call with tensors that have no memory, with and without, by turns.

    python benchmarks/recorded_calls.py

Prints the ratio of the medians, and the median of the ratios of neighbours. There is no GPU: a real call takes longer.
"""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import fake_job
import loader_tasks
from fa4_precompile.loader.choices import OnMiss
from fa4_precompile.loader.config import Config
from fa4_precompile.loader.install import install_config
from fake_job import Call
from jobs import B200
from support import make_target

_TURNS = 60
_WARM = 10  # the first records, which reads files; then the caches of the processor are warm
_CALLS = 40


def seconds(folder: Path | None) -> float:
    """Return what steady calls take, recorded in a folder if there is one, in seconds of this thread."""
    install_config(Config((), record=folder, fake=make_target(), on_miss=OnMiss.COMPILE))
    for _ in range(_WARM):
        fake_job.make(Call())
    gc.collect()
    start = time.thread_time()
    for _ in range(_CALLS):
        fake_job.make(Call())
    return time.thread_time() - start


def main() -> None:
    """Measure, and print the two ratios."""
    os.environ.update(B200)
    loader_tasks.prepare()
    without, with_one = list[float](), list[float]()
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)  # first of all, so last: recordings write at the end, too
    for turn in range(_TURNS):
        for is_recorded in (False, True) if turn % 2 else (True, False):
            (with_one if is_recorded else without).append(seconds(folder if is_recorded else None))
    paired = statistics.median(one / other for one, other in zip(with_one, without, strict=True))
    print(f"{statistics.median(with_one) / statistics.median(without):.3f} of medians, {paired:.3f} of neighbours")


if __name__ == "__main__":
    main()

"""What it costs a job to tell what the functions in its keys do: CPU time, beside FlashAttention's own hash of them.

    python benchmarks/functions.py

Each function is told in a new process, as a job meets it once: the first time its text is read and parsed, and each
further key reads its values only.
"""

from __future__ import annotations

import importlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_FUNCTIONS = (
    "score_mods:times_two",
    "score_mods:below_the_limit",
    "fa4_precompile.masks.segment_mods:mask_3",
    "fa4_precompile.masks.segment_mods:mask_31",
)
_PROCESSES = 7
_KEYS = 50


def main() -> None:
    """Print a line for each function; in a child, measure one."""
    if len(sys.argv) > 1:
        print(json.dumps(_measured(sys.argv[1])))
        return
    print(f"{'function':45} {'FA4, first':>11} {'ours, first':>11} {'another key':>11}   (ms of CPU time)")
    for name in _FUNCTIONS:
        found = [_in_a_process(name) for _ in range(_PROCESSES)]
        stock, first, then = (statistics.median(column) * 1000 for column in zip(*found, strict=True))
        print(f"{name:45} {stock:11.3f} {first:11.3f} {then:11.4f}")


def _in_a_process(name: str) -> list[float]:
    done = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, check=True)
    found: list[float] = json.loads(done.stdout)
    return found


def _measured(name: str) -> list[float]:
    sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
    recognizers: Any = importlib.import_module("fa4_precompile.providers.fa4.recognizer")
    hashing: Any = importlib.import_module("flash_attn.cute.utils")
    module, _, attribute = name.partition(":")
    function = getattr(importlib.import_module(module), attribute)
    stock = _seconds(lambda: hashing._compute_base_hash(function.__wrapped__))
    recognizer = recognizers.FlashRecognizer("flash_attn.cute")
    recognizer.describer.describe(lambda: None)  # what it imports
    first = _seconds(lambda: recognizer.describer.describe(function))
    then = min(_seconds(lambda: recognizer.describer.describe(function)) for _ in range(_KEYS))
    return [stock, first, then]


def _seconds(work: Callable[[], object]) -> float:
    start = time.thread_time()
    work()
    return time.thread_time() - start


if __name__ == "__main__":
    main()

"""What planning takes: two shipped specs, each a process of its own, and 10,000 calls once all is imported.

    python benchmarks/planning.py

The 10,000 are what a training fleet may call: dtypes, head dims, causal, window, GQA ratios, varlen, the log-sum-exp,
deterministic backward, each at five shapes.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

from rows import Row

from fa4_precompile.precompile.compile.compilers import Compilers
from fa4_precompile.precompile.compile.pool import default_jobs
from fa4_precompile.precompile.plan import make_plan
from fa4_precompile.precompile.spec.spec import parse_spec, target_book
from fa4_precompile.providers.installed import installed_toolchain
from fa4_precompile.providers.registry import DEFAULT

_RUNS = 3
_SHIPPED = ("magi_attention", "fa4_sm100")
_AXES = """
  dtype: [bf16, fp16]
  head_dim: [64, 96, 128, [192, 128], 256]
  causal: [false, true]
  qheads_per_kvhead: [1, 2, 4, 8, 16]
  varlen: [false, true]
  window: [null, [512, 0]]
  shape: [{}, {batch: 1}, {seqlen_q: 128}, {seqlen_q: 1, seqlen_k: 8192}, {batch: 64, seqlen_q: 512, seqlen_k: 512}]
"""
_SPEC = f"""
version: 1
provider: flash-attn-4
targets: [b200]
kernels:
- name: all
  pass: [fwd, bwd]
  return_lse: [false, true]{_AXES}
- name: deterministic
  pass: bwd
  deterministic: true{_AXES}
"""


def rows() -> list[Row]:
    """Measure, and return one row a figure: name, value, unit."""
    return [row for name in _SHIPPED for row in _shipped(name)] + _many_calls()


def _shipped(name: str) -> list[Row]:
    """Plan a shipped spec by the command; its CPU time is that of all its processes. Medians."""
    command = [sys.executable, "-m", "fa4_precompile", "plan", name, "--json"]
    runs = []
    for _ in range(_RUNS):
        before, start = os.times(), time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wall, after = time.monotonic() - start, os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        runs.append((wall, cpu))
    medians = [statistics.median(column) for column in zip(*runs, strict=True)]
    return [Row(f"plan {name}", value, unit) for value, unit in zip(medians, ("s wall", "CPU s"), strict=True)]


def _many_calls() -> list[Row]:
    spec = parse_spec("planning.yaml", _SPEC, target_book())
    with Compilers(DEFAULT, spec.targets[0], installed_toolchain(DEFAULT), default_jobs()) as compilers:
        start = time.monotonic()
        compilers.pool().submit(len, []).result()
        imports, start = time.monotonic() - start, time.monotonic()
        make_plan(spec, compilers)
        asking = time.monotonic() - start
    calls = f"asking about {len(spec.variants):,} calls after imports"
    return [Row("imports of a fork server", imports, "s wall"), Row(calls, asking, "s wall")]


def main() -> None:
    """Print one line a row."""
    for row in rows():
        print(row.line())


if __name__ == "__main__":
    main()

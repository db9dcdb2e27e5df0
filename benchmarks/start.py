"""How long a process takes from its start to its first step, and to all of its first calls. Needs a GPU.

    python benchmarks/start.py --kernels DIR [--rounds 3] [--pause 0 2]

DIR is a cache of tests/gpu/kernels.yaml for this GPU. Each row is the median of processes of their own, by turns with
those of the other rows: FlashAttention alone, compiling and with its disk cache warm, and ours with the compiler
imported, with stand-ins for it, and with kernels that are loaded in the background meanwhile. A pause is what a job
spends on building its model between its imports and its first call.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

_CALLS = [(head_dim, causal) for head_dim in (64, 128, 256) for causal in (False, True)]
_STOCK, _COMPILING = "stock, disk cache warm", "stock, compiling"
_ROWS: Mapping[str, Mapping[str, str]] = {
    _STOCK: {},
    "ours": {"FA4_PRECOMPILE_COMPILER": "present", "FA4_PRECOMPILE_PRELOAD": "0"},
    "ours, no compiler": {"FA4_PRECOMPILE_COMPILER": "absent", "FA4_PRECOMPILE_PRELOAD": "0"},
    "ours, no compiler, background": {"FA4_PRECOMPILE_COMPILER": "absent", "FA4_PRECOMPILE_PRELOAD": "background"},
}


def _child(started: float, pause: float) -> dict[str, float]:
    """Do what a job does up to its first calls, and say how many seconds what took."""
    times = [time.time()]
    import torch

    times.append(time.time())
    from flash_attn.cute.interface import flash_attn_func

    times.append(time.time())
    torch.ones(8, device="cuda", dtype=torch.bfloat16, requires_grad=True).exp().sum().backward()
    torch.cuda.synchronize()
    times.append(time.time())
    cases = [
        ([torch.randn(2, 1024, 8, dim, device="cuda", dtype=torch.bfloat16).requires_grad_() for _ in range(3)], causal)
        for dim, causal in _CALLS
    ]
    torch.cuda.synchronize()
    time.sleep(pause)
    begin, first = time.perf_counter(), 0.0
    for (q, k, v), causal in cases:
        out, *_ = flash_attn_func(q, k, v, causal=causal)
        out.sum().backward()  # as of a loss: a gradient that is given has torch import sympy, a third of a second
        if not first:
            torch.cuda.synchronize()
            first = time.time() - pause
    torch.cuda.synchronize()
    spent = [after - before for before, after in itertools.pairwise(times)]
    calls = time.perf_counter() - begin
    names = ("torch", "provider", "cuda")
    return {**dict(zip(names, spent, strict=True)), "step": first - started, "calls": calls}


def _run(row: str, kernels: Path, pause: float, disk: str) -> dict[str, float]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FA4_PRECOMPILE_")}
    environment |= _ROWS.get(row, {})
    if row == _STOCK:
        environment |= {
            "FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED": "1",
            "FLASH_ATTENTION_CUTE_DSL_CACHE_DIR": disk,
        }
    elif row != _COMPILING:
        environment |= {"FA4_PRECOMPILE_CACHE": str(kernels), "FA4_PRECOMPILE_ON_MISS": "error"}
    command = [sys.executable, __file__, "--child", repr(time.time()), "--pause", str(pause)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{row}:\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _table(kernels: Path, rounds: int, pause: float, disk: str) -> None:
    found: dict[str, list[dict[str, float]]] = {row: [] for row in _ROWS}
    for _ in range(rounds):
        for row in _ROWS:
            found[row].append(_run(row, kernels, pause, disk))
    medians = {
        row: {name: statistics.median(one[name] for one in runs) for name in runs[0]} for row, runs in found.items()
    }
    print(f"\n{len(_CALLS)} forwards and backwards, {pause:g} s between imports and calls, median of {rounds}")
    titles = ("torch", "FA4", "CUDA", "first step", "ratio", "all calls", "ratio")
    print(f"{'':32}" + "".join(f"{title:>11}" for title in titles))
    stock = medians[_STOCK]
    for row, times in medians.items():
        seconds = [*(times[name] for name in ("torch", "provider", "cuda")), times["step"]]
        ratios = stock["step"] / times["step"], stock["calls"] / times["calls"]
        print(
            f"{row:32}{''.join(f'{one:>9.2f} s' for one in seconds)}{ratios[0]:>11.2f}"
            f"{times['calls'] * 1e3:>8.1f} ms{ratios[1]:>11.2f}"
        )


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernels", type=Path, metavar="DIR")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pause", type=float, nargs="+", default=[0.0, 2.0], metavar="S")
    parser.add_argument("--child", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        print(json.dumps(_child(arguments.child, arguments.pause[0])))
        return
    if arguments.kernels is None:
        parser.error("--kernels names a cache")
    with tempfile.TemporaryDirectory() as disk:
        _run(_STOCK, arguments.kernels, 0, disk)  # fills the disk cache
        compiling = _run(_COMPILING, arguments.kernels, 0, disk)
        print(f"{_COMPILING}: first step {compiling['step']:.2f} s, all calls {compiling['calls']:.2f} s")
        for pause in arguments.pause:
            _table(arguments.kernels.absolute(), arguments.rounds, pause, disk)


if __name__ == "__main__":
    _main()

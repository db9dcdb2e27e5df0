"""How long a job waits for its kernels, with this loader and with stock FlashAttention side by side. Needs a GPU.

    python benchmarks/loading.py --kernels DIR

DIR is a cache of tests/gpu/kernels.yaml for this GPU: `fa4-precompile build tests/gpu/kernels.yaml --target NAME`.
Each row of the first table is a process of its own; rows of the second are measured by turns in one process, and those
of the third, what it takes to load a kernel, by turns in several. The third needs no GPU, and takes any cache:

    python benchmarks/loading.py --kernels build/kernels --only-loads
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fa4_precompile
from fa4_precompile.cache.outcome import Hit
from fa4_precompile.cache.record import Record
from fa4_precompile.cache.store import Root
from fa4_precompile.products import load

_CALLS = [(head_dim, causal) for head_dim in (64, 128, 256) for causal in (False, True)]
_ROUNDS = 3
_TURNS, _CALLS_A_TURN = 40, 100
_PROCESSES = 8


def _tensors(head_dim: int) -> Any:
    import torch

    return [torch.randn(2, 1024, 8, head_dim, device="cuda", dtype=torch.bfloat16).requires_grad_() for _ in range(3)]


def _child(mode: str, kernels: Path) -> dict[str, float]:
    """Import, start CUDA, and time the first calls."""
    start = time.perf_counter()
    import torch

    if mode.startswith("ours"):
        fa4_precompile.install(kernels, on_miss="error", preload="background" if "background" in mode else False)
    from flash_attn.cute.interface import flash_attn_func

    imported = time.perf_counter()
    torch.ones(8, device="cuda").exp_()
    cases = [(_tensors(head_dim), causal) for head_dim, causal in _CALLS]
    if mode.endswith("background") or mode.endswith("after a pause"):
        _build_a_model()
    torch.cuda.synchronize()
    preload = time.perf_counter()
    if mode == "ours, preloaded":
        fa4_precompile.preload()
        torch.cuda.synchronize()
    begin = time.perf_counter()
    for (q, k, v), causal in cases:
        out, *_ = flash_attn_func(q, k, v, causal=causal)
        torch.autograd.grad(out, (q, k, v), torch.ones_like(out))
    torch.cuda.synchronize()
    end = time.perf_counter()
    return {
        "import": imported - start,
        "preload": begin - preload,
        "first": end - begin,
        "resolved": fa4_precompile.stats().resolved,
    }


def _build_a_model() -> None:
    """Do for two seconds what a job does between its imports and its first step: Python, and work on the GPU."""
    import torch

    layers, end = [], time.perf_counter() + 2
    while time.perf_counter() < end:
        layers.append(torch.nn.Linear(512, 512, device="cuda", dtype=torch.bfloat16))
        layers = layers[-100:]


def _first_calls(kernels: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        disk = {"FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED": "1", "FLASH_ATTENTION_CUTE_DSL_CACHE_DIR": folder}

        def run(mode: str) -> dict[str, float]:
            command = [sys.executable, __file__, "--kernels", str(kernels), "--child", mode]
            environment = {**os.environ, **(disk if mode.startswith("stock, disk") else {})}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                sys.exit(done.stderr)
            return dict(json.loads(done.stdout.splitlines()[-1]))

        run("stock, disk cache cold")
        modes = ["stock, disk cache warm", "ours", "ours, preloaded", "stock, disk cache warm, after a pause"]
        modes += ["ours, in the background"]
        found: dict[str, list[dict[str, float]]] = {mode: [] for mode in modes}
        for _ in range(_ROUNDS):
            for mode in modes:
                found[mode].append(run(mode))
        jit = run("stock, compiling")
    print(f"first calls: {len(_CALLS)} forwards and backwards, {found['ours'][0]['resolved']:.0f} kernels")
    print(f"{'':38}{'import':>10}{'preload':>12}{'first calls':>14}{'ratio':>8}")
    print(f"{'stock, compiling':38}{jit['import']:>8.2f} s{'':>12}{jit['first']:>12.2f} s")
    for mode in modes:
        stock = f"stock, disk cache warm{', after a pause' if mode == 'ours, in the background' else ''}"
        warm = statistics.median(one["first"] for one in found[stock])
        imports, preload, first = (
            statistics.median(one[name] for one in found[mode]) for name in ("import", "preload", "first")
        )
        shown = f"{preload * 1e3:>9.1f} ms" if mode == "ours, preloaded" else f"{'':>12}"
        print(f"{mode:38}{imports:>8.2f} s{shown}{first * 1e3:>11.1f} ms{warm / first:>8.1f}")


def _steady_calls(kernels: Path) -> None:
    """Compare whole calls whose kernel is resolved with stock ones whose kernel is in memory, turn by turn."""
    import torch
    from flash_attn.cute.interface import flash_attn_func

    q, k, v = _tensors(128)

    def turn() -> float:
        torch.cuda.synchronize()
        times = []
        with torch.no_grad():
            for _ in range(_CALLS_A_TURN):
                begin = time.perf_counter()
                flash_attn_func(q, k, v, causal=True)
                times.append(time.perf_counter() - begin)
        torch.cuda.synchronize()
        return statistics.median(times)

    found: dict[str, list[float]] = {"stock": [], "ours": []}
    turn()
    for _ in range(_TURNS):
        found["stock"].append(turn())
        fa4_precompile.install(kernels, on_miss="error", preload=False)
        flash_attn_func(q.detach(), k.detach(), v.detach(), causal=True)
        found["ours"].append(turn())
        fa4_precompile.uninstall()
    stock, ours = (statistics.median(found[name]) for name in ("stock", "ours"))
    print(f"\nwhole call, kernel in memory, host time, median of {_TURNS} turns of {_CALLS_A_TURN}")
    print(f"stock {stock * 1e6:.1f} us, ours {ours * 1e6:.1f} us, ratio {ours / stock:.3f}")


_WAYS = {"bare": "bare dlopen", "blob": "verified blob", "whole": "record and verified blob"}


def _load_each(kernels: Path, turn: int) -> dict[str, list[float]]:
    """Load each kernel twice, and return what it took: by a bare `dlopen` of its file, and with its bytes verified.

    A library that is loaded already would cost nothing, so each is verified with its record or without, by turns.
    """
    root = Root(kernels)
    records = [record for record in root.records() if isinstance(record, Record)]
    load.open_run_time()
    with tempfile.TemporaryDirectory() as folder:
        for record in records:
            shutil.copy(root.blob_path(record), Path(folder, record.id))
        kept: list[Any] = []

        def bare(record: Record) -> None:
            kept.append(ctypes.CDLL(str(Path(folder, record.id)), mode=os.RTLD_NOW | os.RTLD_LOCAL))

        def blob(record: Record) -> None:
            data = root.blob(record)
            _, address = load.open_blob(data, record.blob, record.symbol)
            kept.append(load.make_function(address))

        def whole(record: Record) -> None:
            found = root.find(record.toolchain, record.id)
            assert isinstance(found, Hit)
            _, address = load.open_blob(found.blob, record.blob, record.symbol)
            kept.append(load.make_function(address))

        root.keep_folders()  # as a loader does
        for record in records:  # into the page cache
            root.find(record.toolchain, record.id)
        ways: list[Callable[[Record], None]] = [bare, whole, blob]
        times: dict[str, list[float]] = {way.__name__: [] for way in ways}
        for index, record in enumerate(records, turn):
            verified = whole if index % 2 else blob
            for way in [bare, verified] if index % 4 < 2 else [verified, bare]:
                begin = time.perf_counter()
                way(record)
                times[way.__name__].append(time.perf_counter() - begin)
    return times


def _loads(kernels: Path) -> None:
    """Compare verified loads with bare `dlopen`s of the same files, kernel by kernel, in several processes."""
    times: dict[str, list[float]] = {way: [] for way in _WAYS}
    for turn in range(_PROCESSES):
        command = [sys.executable, __file__, "--kernels", str(kernels), "--child", f"loads {turn}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(done.stderr)
        for way, found in json.loads(done.stdout).items():
            times[way] += found
    base = statistics.median(times["bare"])
    print(f"\nload of a kernel, warm page cache, median of {len(times['bare'])} in {_PROCESSES} processes")
    for way, label in _WAYS.items():
        print(f"{label:26}{statistics.median(times[way]) * 1e3:>8.3f} ms{statistics.median(times[way]) / base:>6.2f}")


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernels", type=Path, required=True, metavar="DIR")
    parser.add_argument("--only-loads", action="store_true", help="print the third table only; needs no GPU")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child and arguments.child.startswith("loads "):
        print(json.dumps(_load_each(arguments.kernels, int(arguments.child.removeprefix("loads ")))))
        return
    if arguments.child:
        print(json.dumps(_child(arguments.child, arguments.kernels)))
        return
    if not arguments.only_loads:
        _first_calls(arguments.kernels)
        _steady_calls(arguments.kernels)
    _loads(arguments.kernels)


if __name__ == "__main__":
    _main()

"""A job in a process of its own, which gets the loader from its environment. Prints what it did as a line of JSON."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import flash_attn.cute.interface  # noqa: F401  # a job has imported it before it captures or forks
import torch

import fa4_precompile
import gpu_calls
from fa4_precompile.loader.cuda import Cuda
from fa4_precompile.precompile.spec.spec import read_spec, target_book
from fa4_precompile.providers.fa4.reference import distance
from fa4_precompile.providers.fa4.variant import own

_VARIANTS = [
    variant
    for variant in map(own, read_spec(Path(__file__).parent / "kernels.yaml", target_book()).variants)
    if (variant.head_dim, variant.head_dim_v, variant.sparse, variant.window) == (128, 128, None, None)
]


def step() -> dict[str, object]:
    """Make one training step."""
    case = gpu_calls.make(next(variant for variant in _VARIANTS if variant.pass_ == "bwd"))
    case.run().sum().backward()
    torch.cuda.synchronize()
    return {}


def capture() -> dict[str, object]:
    """Preload, and capture a CUDA graph of a call that this process has never made."""
    fa4_precompile.preload()
    case = gpu_calls.make(next(variant for variant in _VARIANTS if variant.pass_ == "fwd"))
    expected = case.reference()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = case.run()
    graph.replay()
    torch.cuda.synchronize()
    return {"error": distance(found, expected)}


def capture_first() -> dict[str, object]:
    """Capture a graph of the first call, as soon as there is a context; then others, until all kernels are loaded."""
    variant = next(variant for variant in _VARIANTS if variant.pass_ == "fwd")
    case, ones = gpu_calls.make(variant), torch.ones(1024, device="cuda")
    torch.cuda.synchronize()
    begin, captured = time.monotonic(), 0
    graph, found = _captured(case.run)
    while _is_loading() or time.monotonic() < begin + 0.5:
        other, twos = _captured(lambda: ones + 1)
        other.replay()
        assert twos.sum().item() == 2048
        captured += 1
    graph.replay()
    torch.cuda.synchronize()
    return {"error": distance(found, case.reference()), "captured": captured}


def _captured(run: Callable[[], torch.Tensor]) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
    """Capture a call, in the mode that minds what other threads do, and without what `torch.cuda.graph` does around."""
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        graph.capture_begin(capture_error_mode="global")
        try:
            found = run()
        finally:
            graph.capture_end()
    torch.cuda.current_stream().wait_stream(stream)
    return graph, found


def step_in_the_background() -> dict[str, object]:
    """Make a step when the background is done, and tell which GPUs had a context before it began, and after."""
    torch.ones(1, device=f"cuda:{torch.cuda.device_count() - 1}")
    before = Cuda().contexts()
    while _is_loading():
        time.sleep(0.01)
    return {"before": before, "after": Cuda().contexts(), **step()}


def fork() -> dict[str, object]:
    """Let a child use CUDA that is forked while the background, if there is one, waits for a context here.

    Tells the child's exit code: it can't, where something that was imported has initialized CUDA, as TVM-FFI does.
    """
    time.sleep(1)
    waits = _is_loading()
    child = os.fork()
    if child == 0:
        try:
            step()
            os._exit(0 if fa4_precompile.stats().resolved else 1)
        finally:
            os._exit(2)
    return {"child": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), "waits": waits and _is_loading()}


def _is_loading() -> bool:
    return any(thread.name == "fa4-precompile" for thread in threading.enumerate())


_TASKS = (step, capture, capture_first, step_in_the_background, fork)
_did = {task.__name__: task for task in _TASKS}[sys.argv[1]]()
print(json.dumps({**_did, **asdict(fa4_precompile.stats())}))  # noqa: T201

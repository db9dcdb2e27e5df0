"""A job in a process of its own, which gets the loader from its environment. Prints what it did as a line of JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

import fa4_precompile
import gpu_calls
from fa4_precompile.precompile.spec.spec import read_spec, target_book
from fa4_precompile.providers.fa4.variant import own
from gpu_reference import distance

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


print(json.dumps({**{"step": step, "capture": capture}[sys.argv[1]](), **asdict(fa4_precompile.stats())}))  # noqa: T201

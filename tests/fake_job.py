"""A job that calls FlashAttention-4 with fake tensors, which have no memory.

FlashAttention then looks its kernels up, and compiles what it does not find, as ever; it launches none. So such a job
needs no GPU, and what it can't tell is whether a kernel computes the right thing (`gpu/` does).

As a script it gets its loader from the environment, makes the calls of its argument (JSON, `Call`), and prints a
`Report` as JSON in its last line.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Call:
    """A call of FlashAttention's; with `training`, one whose tensors want gradients, and its backward.

    `mask_mod` is the name of a function in `score_mods`.
    """

    head_dim: int = 64
    causal: bool = True
    training: bool = False
    dtype: str = "bfloat16"
    heads: int = 2
    kv_heads: int = 2
    window: tuple[int | None, int | None] = (None, None)
    varlen: bool = False
    return_lse: bool = False
    deterministic: bool = False
    batch: int = 2
    seqlen_q: int = 4096
    seqlen_k: int = 4096
    mask_mod: str | None = None


@dataclass(frozen=True)
class Missing:
    """A `KernelMissing` that a call raised: its fields, the key that was looked up, and its text."""

    slot: str
    reason: str
    key: str
    details: Sequence[str]
    nearest: Sequence[str]
    missing_env: Mapping[str, str]
    spec_lines: str
    text: str


@dataclass(frozen=True)
class Report:
    """What a job did: the loader's `Stats`, what was missing call by call, and what the loader warned of."""

    stats: Mapping[str, Any] = field(default_factory=dict)
    missing: Sequence[Missing] = ()
    warnings: Sequence[str] = ()

    @classmethod
    def parse(cls, text: str) -> Report:
        """Read what `render` wrote."""
        content = json.loads(text)
        return cls(content["stats"], [Missing(**one) for one in content["missing"]], content["warnings"])

    def render(self) -> str:
        """Return the report as a line of JSON."""
        return json.dumps(asdict(self))


def load() -> Any:
    """Import FlashAttention, with a torch that says it is one for CUDA 13; a CPU build says nothing."""
    import torch

    torch.version.cuda = "13.0"
    from flash_attn.cute import interface

    return interface


def make(call: Call) -> None:
    """Make a call."""
    interface: Any = load()
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    def tensor(seqlen: int, heads: int) -> Any:
        rows = (call.batch * seqlen,) if call.varlen else (call.batch, seqlen)
        dtype = getattr(torch, call.dtype)
        return torch.empty(*rows, heads, call.head_dim, dtype=dtype, device="cuda", requires_grad=call.training)

    # Without torch's autograd engine, which aborts a process for CUDA tensors on a build without CUDA.
    with FakeTensorMode(), torch.no_grad():
        q = tensor(call.seqlen_q, call.heads)
        k, v = tensor(call.seqlen_k, call.kv_heads), tensor(call.seqlen_k, call.kv_heads)
        lengths: dict[str, Any] = {}
        if call.varlen:
            ends = torch.empty(call.batch + 1, dtype=torch.int32, device="cuda")
            lengths = {"cu_seqlens_q": ends, "cu_seqlens_k": ends}
            lengths.update(max_seqlen_q=call.seqlen_q, max_seqlen_k=call.seqlen_k)
        options: dict[str, Any] = {"causal": call.causal, "deterministic": call.deterministic}
        if call.mask_mod:
            options["mask_mod"] = getattr(importlib.import_module("score_mods"), call.mask_mod)
        function = interface.flash_attn_varlen_func if call.varlen else interface.flash_attn_func
        out, lse = function(q, k, v, **lengths, **options, window_size=call.window, return_lse=call.return_lse)
        if call.training:
            left, right = call.window
            lengths.update(window_size_left=left, window_size_right=right)
            interface._flash_attn_bwd(q, k, v, out, torch.empty_like(out), lse, **lengths, **options)


def report_on(calls: Sequence[Call]) -> Report:
    """Make calls, each whatever became of the others, and tell what the loader did."""
    import fa4_precompile
    from fa4_precompile import KernelMissing

    missing = []
    with warnings_of_the_loader() as warnings:
        for call in calls:
            try:
                make(call)
            except KernelMissing as error:
                missing.append(_missing(error))
    return Report(asdict(fa4_precompile.stats()), missing, warnings)


@contextmanager
def warnings_of_the_loader() -> Iterator[list[str]]:
    """Collect what the loader warns of, until the block ends."""
    messages: list[str] = []

    class Collecting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    handler = Collecting(logging.WARNING)
    logger = logging.getLogger("fa4_precompile")
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)


def _missing(error: Any) -> Missing:
    from fa4_precompile.cache.key import encode_key

    trace = error.__traceback__
    key = ""
    while trace is not None:  # FlashAttention's frame that looked it up has the key itself
        if "compile_key" in trace.tb_frame.f_locals:
            key = encode_key(trace.tb_frame.f_locals["compile_key"])
        trace = trace.tb_next
    return Missing(
        error.slot,
        error.reason,
        key,
        list(error.details),
        list(error.nearest),
        dict(error.missing_env),
        error.spec_lines,
        str(error),
    )


def calls(text: str) -> list[Call]:
    """Read calls from JSON."""
    return [Call(**{**call, "window": tuple(call.get("window", (None, None)))}) for call in json.loads(text)]


if __name__ == "__main__":
    print(report_on(calls(sys.argv[1])).render())  # noqa: T201

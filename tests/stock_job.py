"""FlashAttention-4 as published, with its own disk cache and no compiler: a job in which nothing of ours is installed.

As a script it makes the calls of its argument (JSON, `fake_job.Call`) with FlashAttention's cache where its variables
say, and prints a `StockReport` as JSON in its last line.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import fake_job


@dataclass(frozen=True)
class StockReport:
    """What a job did.

    Attributes:
        loaded: slot, and the words with which a kernel refuses to be called without arguments, of each that was found.
        forbidden: slots of the kernels that were to be compiled.
        ours: modules of ours in the process.
    """

    loaded: Sequence[tuple[str, str]]
    forbidden: Sequence[str]
    ours: Sequence[str]


def report_of_stock(calls: Sequence[fake_job.Call], folder: Path) -> StockReport:
    """Return what a job does that makes calls, with its disk cache in a folder."""
    from jobs import run_from_scratch

    done = run_from_scratch(
        [sys.executable, __file__, json.dumps([asdict(call) for call in calls])],
        FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED="1",
        FLASH_ATTENTION_CUTE_DSL_CACHE_DIR=str(folder),
        TORCH_DEVICE_BACKEND_AUTOLOAD="0",  # else torch imports our plug-in, which then does nothing
    )
    assert done.code == 0, done.err
    content = json.loads(done.out.splitlines()[-1])
    return StockReport([(slot, words) for slot, words in content["loaded"]], content["forbidden"], content["ours"])


class _Forbidden(Exception):
    pass


def _forbid_compiling() -> None:
    import cutlass.cute

    def forbidden(*_: Any, **__: Any) -> NoReturn:
        raise _Forbidden

    cutlass.cute.compile = forbidden


def _slots(interface: Any) -> dict[str, Any]:
    caches = [getattr(function, "compile_cache", None) for function in vars(interface).values()]
    return {cache.cache_path.name: cache for cache in caches if cache is not None}


def _refusal(kernel: Any) -> str:
    try:
        kernel()
    except TypeError as error:
        return str(error)
    return ""


def _main(calls: str) -> None:
    interface = fake_job.load()
    _forbid_compiling()
    forbidden = []
    for call in fake_job.calls(calls):
        try:
            fake_job.make(call)
        except _Forbidden as error:
            frames = []
            trace = error.__traceback__
            while trace is not None:
                frames.append(trace.tb_frame.f_code.co_name)
                trace = trace.tb_next
            forbidden.append(next(name for name in reversed(frames) if name not in ("forbidden",)))
    loaded = [(name, _refusal(kernel)) for name, cache in _slots(interface).items() for kernel in cache.cache.values()]
    ours = sorted(name for name in sys.modules if name.partition(".")[0] == "fa4_precompile")
    sys.stdout.write("\n" + json.dumps(asdict(StockReport(loaded, forbidden, ours))) + "\n")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    _main(sys.argv[1])

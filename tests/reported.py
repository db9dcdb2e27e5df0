"""Made-up lines of reports, and a cache of many kinds of kernels, for tests of what is put together of them."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fa4_precompile.cache.key import encode_key
from fa4_precompile.cache.manifest import Excluded, Reaching
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.record import Function, Record, Selection
from fa4_precompile.cache.store import Root
from fa4_precompile.loader.line import Line, ServedRoot
from fa4_precompile.loader.ranks import Placement
from fa4_precompile.loader.stats import Missed, Slow, Stats
from support import (
    make_certificate,
    make_manifest,
    make_origin,
    make_record,
    make_target,
    make_toolchain,
    synthetic_blob,
)

MISSED = Missed(
    "bwd", "absent", "sm_100a", {"pass": "bwd", "dtype": "bf16", "head_dim": 96, "causal": True}, "no root has a kernel"
)


def make_line(rank: int | None = 0, world_size: int | None = None, **changes: Any) -> Line:
    """Return the line of a process that was served; `host`, `job`, and fields of `Stats`, are changes too."""
    host, job = changes.pop("host", f"node-{(rank or 0) // 16}"), changes.pop("job", "")
    local_rank = None if rank is None else rank % 16
    line = Line(
        process=changes.pop("process", 1000 + (rank or 0)),
        placement=Placement(host, rank, local_rank, world_size, job),
        started="2026-11-29T12:00:00.000000Z",
        time="2026-11-29T12:30:00.000000Z",
        ended=True,
        on_miss="error",
        stats=Stats(17, 23, {}, 0, 0, 0, 0.0123, 0.0, 36.3),
        roots=[ServedRoot("/opt/kernels", "f" * 64)],
        toolchains=["c" * 32],
        first_lookup_seconds=4.5,
        misses=[],
        slowest=[Slow("a" * 64, "fwd", 0.004)],
        kernels=[],
    )
    counts = {name: changes.pop(name) for name in list(changes) if name in Stats.__dataclass_fields__}
    return replace(line, stats=replace(line.stats, **counts), **changes)


def write_lines(file: Path, lines: Iterable[Line]) -> Path:
    """Append lines to a report."""
    with file.open("a") as report:
        report.writelines(json.dumps(line.render()) + "\n" for line in lines)
    return file


def varied_cache(path: Path) -> list[Record]:
    """Make a cache with kernels of many head_dims, passes and masks for two archs, and calls that are excluded."""
    publisher = Publisher(Root(path))
    publisher.create()
    publisher.publish_toolchain(make_toolchain())
    chance, made = random.Random(7), []
    for target in (make_target(), make_target(name="h200", arch="sm_90a", sms=132)):
        calls, excluded = [], []
        axes = itertools.product((64, 96, 128, [192, 128], 256), ("fwd", "bwd"), _MASKS)
        for number, (head_dim, pass_, mask) in enumerate(axes):
            variant: dict[str, object] = {"pass": pass_, "dtype": "bf16", "head_dim": head_dim, **mask}
            if head_dim == 256 and ("sparse" in mask or target.arch == "sm_90a"):
                reason = "block sparsity with head_dim 256 is not supported" if "sparse" in mask else "no head_dim 256"
                excluded.append(Excluded(variant, reason))
                continue
            if head_dim == 96 and pass_ == "bwd":
                continue
            blob = synthetic_blob(number) * chance.randint(60, 300)
            record = make_record(
                blob,
                arch=target.arch,
                slot=pass_,
                key=encode_key((target.arch, number)),
                facts={},
                selection=Selection("SyntheticForward", "generic", chance.choice((1, 2)), {"main": (128, 128)}),
                functions=[Function("_Z", chance.choice((128, 168, 240)), chance.choice((0, 0, 112)), 1024)],
            )
            seconds = chance.uniform(1.5, 9.9)
            publisher.publish(
                record, blob, make_origin(record, variant=variant, target=target, compile_seconds=seconds)
            )
            if number % 9 == 0:
                publisher.publish_certificate(make_certificate(record))
            calls.append(Reaching(variant, {}, [record.id]))
            made.append(record)
        kernels = sorted(kernel for call in calls for kernel in call.kernels)
        publisher.publish_manifest(
            make_manifest(
                target=target, kernels=kernels, calls=calls, excluded=excluded, variants=len(calls) + len(excluded)
            )
        )
    return made


_MASKS: tuple[dict[str, object], ...] = (
    {},
    {"causal": True},
    {"window": [1023, 0]},
    {"mask_mod": "masks:segments"},
    {"sparse": {"q_block": 128, "kv_block": 128}},
)

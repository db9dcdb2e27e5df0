"""Helpers of the tests of the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.record import Record
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.toolchain import Toolchain
from fa4_precompile.precompile.spec.spec import read_spec, target_book
from product import Finished
from support import (
    make_manifest,
    numbered_record,
    publish_library,
    synthetic_blob,
)

Cli = Callable[..., Finished]

SPEC = """version: 1
provider: flash-attn-4
targets: [{targets}]
kernels:
- {{name: one, pass: fwd, dtype: bf16, head_dim: 64}}
"""


def write_spec(folder: Path, targets: str = "b200") -> Path:
    path = folder / "spec.yaml"
    path.write_text(SPEC.format(targets=targets))
    return path


def finished_cache(path: Path, spec: Path, toolchain: Toolchain, *targets: str, **changes: Any) -> list[Record]:
    """Make a cache in which a spec is built for targets, as far as anybody can tell who does not load the kernels."""
    root = Root(path)
    Publisher(root).create()
    Publisher(root).publish_toolchain(toolchain)
    publish_library(Publisher(root), toolchain)
    records = [numbered_record(number, toolchain=toolchain.id) for number in range(2)]
    for number, record in enumerate(records):
        Publisher(root).publish(record, synthetic_blob(number))
    for target in targets:
        manifest = make_manifest(
            *records,
            spec="spec",
            spec_digest=read_spec(spec, target_book()).digest,
            target=target_book().get(target),
            toolchain=toolchain.id,
            **changes,
        )
        Publisher(root).publish_manifest(manifest)
    return records


def require_error(done: Finished, code: int) -> str:
    assert done.code == code, done.err
    if done.out:  # of a command that was asked for JSON
        error = json.loads(done.out)["error"]
        assert error["exit_code"] == code
        assert error["message"] in done.err
    assert done.err.startswith("error: ")
    return done.err


def documents(done: Finished) -> Any:
    return json.loads(done.out)

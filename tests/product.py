"""Driving the product as its users do: the command line as a process, and what it leaves on disk."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fa4_precompile.cache.origin import Origin
from fa4_precompile.cache.origins import Origins
from fa4_precompile.cache.outcome import Finding
from fa4_precompile.cache.record import Record
from fa4_precompile.cache.store import Root

_MAIN = "import sys; from fa4_precompile.cli import main; main(sys.argv[1:])"

# Three kinds of kernel for two SMs: a persistent forward (it asks for the number of SMs), a causal one (it does not),
# and a backward with its pre- and postprocessing.
SMALL_SPEC = """
version: 1
provider: flash-attn-4
targets: [b200]
kernels:
- {name: inference, pass: fwd, dtype: bf16, head_dim: 64, causal: [false, true]}
- {name: training, pass: bwd, dtype: bf16, head_dim: 64, causal: true}
"""


@dataclass(frozen=True)
class Finished:
    """A process that has ended."""

    code: int
    out: str
    err: str


def command(*arguments: object) -> list[str]:
    """Return the command line as a process of this interpreter."""
    return [sys.executable, "-c", _MAIN, *map(str, arguments)]


def run(*arguments: object, environment: Mapping[str, str] | None = None, cwd: Path | None = None) -> Finished:
    """Run the command line to its end."""
    done = subprocess.run(
        command(*arguments),
        env={**os.environ, **(environment or {})},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def copy_cache(cache: Path, copy: Path, without: str = "") -> Path:
    """Copy a cache, without the kernels of a slot, and return the copy."""
    shutil.copytree(cache, copy)
    for record in records(copy):
        if record.slot == without:
            next(copy.glob(f"records/*/*/{record.id}.json")).unlink()
            next(copy.glob(f"blobs/sha256/*/{record.blob}")).unlink()
    return copy


def origin(cache: Path, record: Record) -> Origin:
    """Return where a kernel comes from, with all that is known."""
    found = Origins(Root(cache)).whole(record)
    assert found is not None
    return found


def records(cache: Path) -> list[Record]:
    """Return the records of a cache; a damaged one fails the test."""
    found = []
    for item in Root(cache).records():
        assert not isinstance(item, Finding), item
        found.append(item)
    return found


def cuobjdump() -> Path:
    """Return NVIDIA's own reader of cubins."""
    distribution = importlib.metadata.distribution("nvidia-cuda-cuobjdump")
    return next(Path(str(distribution.locate_file(f))) for f in distribution.files or () if f.name == "cuobjdump")

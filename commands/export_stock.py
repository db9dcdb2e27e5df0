"""`export --to-...`: the kernels of a spec as the provider's own disk cache."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..providers.installed import installed_toolchain
from ..text.words import count, megabytes, one_line
from .excluded import note_doubts
from .inputs import existing_root, spec_and_targets
from .output import conclude, note, note_lines, print_json, print_lines

if TYPE_CHECKING:
    from ..precompile.export_stock import StockExport


def export_stock(
    spec: str,
    folder: Path,
    cache: Path | None,
    target_name: str | None,
    jobs: int | None,
    allow_untrusted: bool,
    as_json: bool,
) -> None:
    """Write a spec's kernels for one target, and say of each whether a job without a loader finds it."""
    parsed, targets = spec_and_targets(spec, target_name)
    if len(targets) > 1:
        names = ", ".join(target.name for target in targets)
        raise UsageError(f"`{parsed.name}` has several targets ({names}), and one folder is for one", "`--target NAME`")
    root = existing_root(cache, allow_untrusted)
    toolchain = installed_toolchain(parsed.provider)

    from ..precompile.compile.pool import default_jobs
    from ..precompile.export_stock import export_stock

    done = export_stock(root, parsed, targets[0], toolchain, folder.absolute(), note, jobs or default_jobs())
    if as_json:
        print_json(done.render())
    else:
        print_lines(_lines(done))
        note_lines(_job_lines(done))
    note_doubts(parsed, done.excluded)
    conclude(bool(done.unmet or done.broken))


def _lines(done: StockExport) -> Iterator[str]:
    """Yield what a job does not find and why, then a line for each slot."""
    for broken in done.broken:
        yield f"could not be asked about: {broken}"
    for kernel in done.unmet:
        yield f"not found by a job: {kernel.label}: {kernel.reason}"
    there = Counter(kernel.slot for kernel in done.kernels)
    met = Counter(kernel.slot for kernel in done.kernels if not kernel.reason)
    for slot, number in there.items():
        yield f"{slot:20} {met[slot]} of {count(number, 'kernel')} found and loaded"


def _job_lines(done: StockExport) -> Iterator[str]:
    """Yield what a job has to do, and what must be the same there."""
    met = count(len(done.kernels) - len(done.unmet), "kernel")
    there = f"{met} of {len(done.kernels)}, {megabytes(done.bytes)}"
    yield f"{done.spec} for {done.target.name}: {there} in `{done.folder}`"
    yield "a job finds them, in whatever place the folder is then, with"
    yield "  " + " ".join(f"{name}={shlex.quote(value)}" for name, value in done.environment.items())
    yield f"where it has the same as there is here (Python {done.python}):"
    yield from (f"  {condition}" for condition in done.conditions)
    for settings, number in Counter(one_line(kernel.runtime_env) for kernel in done.kernels).items():
        if settings:
            yield f"{count(number, 'kernel')} looked up only by a job that sets {settings}"
    if done.facts:
        yield f"some of them are made for {one_line(done.facts)}, which no name tells: give the folder to no other GPU"

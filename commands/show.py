"""`show`: all that is known of one kernel."""

from __future__ import annotations

from pathlib import Path

from ..cache.record import Record
from ..cache.store import Root
from ..errors import Fa4PrecompileError, RecordError, UntrustedError, UsageError
from .inputs import existing_root
from .lines import record_lines
from .output import print_json, print_lines


def show(kernel: str, cache: Path | None, allow_untrusted: bool, as_json: bool) -> None:
    """Show the kernel whose id begins so."""
    root = existing_root(cache, allow_untrusted)
    record = _only_record(root, kernel)
    if as_json:
        print_json(record.render())
    else:
        print_lines(record_lines(record, root))


def _only_record(root: Root, kernel: str) -> Record:
    found: list[Record] = []
    faults: list[Fa4PrecompileError] = []
    for path in root.record_files(kernel.lower()):
        try:
            found.append(root.record_at(path))
        except (RecordError, UntrustedError) as error:
            faults.append(error)
    if faults and not found:
        raise faults[0]
    if not found:
        raise UsageError(
            f"no kernel of `{root.path}` has an id that begins with {kernel}", "`fa4-precompile ls` lists them"
        )
    if len(found) > 1:
        raise UsageError(f"{len(found)} kernels have an id that begins with {kernel}", "give more digits")
    return found[0]

"""`export`: the builds of a spec into a cache of their own."""

from __future__ import annotations

from pathlib import Path

from ..cache.publish import Publisher
from ..cache.store import Root
from ..carry.receive import receive
from ..errors import UsageError
from .carrying import counted, document, new_files
from .inputs import chosen, existing_root
from .moving import progress
from .output import print_json, print_lines


def export(
    spec: str,
    folder: Path,
    cache: Path | None,
    target: str | None,
    arch: str | None,
    allow_untrusted: bool,
    as_json: bool,
) -> None:
    """Copy what is needed and not there yet, each file verified."""
    root = existing_root(cache, allow_untrusted)
    there = Root(folder.absolute())
    if there.path.resolve() == root.path.resolve():
        raise UsageError(f"`{folder}` is the cache itself", "name another folder")
    source = chosen(root, spec, target, arch)
    with progress("copying", source.wanted) as arrived:
        came = receive(source, Publisher(there), source.wanted, arrived)
    if as_json:
        said = {"cache": str(there.path), "new_files": came.came, "new_bytes": came.bytes}
        print_json(document(source.wanted) | said)
    else:
        new = new_files(came.came, came.bytes)
        print_lines([f"exported {counted(source.wanted)} ({new}) into `{there.path}`: {source.wanted.fingerprint}"])

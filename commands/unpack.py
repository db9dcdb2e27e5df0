"""`unpack`: what is in a pack, into a cache."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from ..carry.packed import PackSource
from ..carry.ranged import RangedFile
from ..carry.receive import receive_all
from .carrying import counted, document, new_files, require_sealed
from .inputs import root_to_fill, vouchers
from .moving import progress
from .output import print_json, print_lines


def unpack(file: Path, cache: Path | None, expect: Sequence[str], trust_keys: Sequence[Path], as_json: bool) -> None:
    """Check a pack from end to end, then publish what is not there yet."""
    root = root_to_fill(cache, expect, trust_keys)
    with closing(RangedFile(file)) as ranged:
        source = PackSource(ranged)
        contents = source.contents()
        vouchers(expect, trust_keys).require(str(file), contents.fingerprint, source.signature)
        with progress("checking", contents) as arrived:
            source.require_canonical(arrived)
        with progress("unpacking", contents) as arrived:
            came = receive_all(source, root, contents, source.signature(), arrived)
    require_sealed(root, came, expect, trust_keys)
    if as_json:
        print_json(document(contents) | {"cache": str(root.path), "new_files": came.came, "new_bytes": came.bytes})
    else:
        new = new_files(came.came, came.bytes)
        print_lines([f"unpacked {counted(contents)} ({new}) into `{root.path}`: {contents.fingerprint}"])

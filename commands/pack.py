"""`pack`: a cache, or a part of it, as one file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from ..carry.pack import write_pack
from ..carry.placed import placed
from ..errors import UsageError
from ..text.words import megabytes
from .carrying import counted, document
from .inputs import chosen, existing_root
from .moving import progress
from .output import note, print_json, print_lines


def pack(
    file: Path,
    cache: Path | None,
    spec: str | None,
    target: str | None,
    arch: str | None,
    is_replacing: bool,
    allow_untrusted: bool,
    as_json: bool,
) -> None:
    """Write a pack, to standard output if the file is `-`."""
    to_output = str(file) == "-"
    if to_output and (as_json or sys.stdout.isatty()):
        raise UsageError("a pack on standard output leaves no room for anything else there", "name a file")
    root = existing_root(cache, allow_untrusted)
    source = chosen(root, spec, target, arch)
    contents, signature = source.wanted, source.signature_of_wanted()

    def write(out: BinaryIO, arrived: Callable[[int], None]) -> int:
        return write_pack(source, contents, out, signature, arrived)

    with progress("packing", contents) as arrived:
        if to_output:
            size = write(sys.stdout.buffer, arrived)
        else:
            with placed(file, is_replacing) as out:
                size = write(out, arrived)
    said = f"packed {counted(contents)} as {megabytes(size)}: `{file}`, {contents.fingerprint}"
    if as_json:
        print_json(document(contents) | {"pack": str(file), "pack_bytes": size})
    elif to_output:
        note(said)
    else:
        print_lines([said])

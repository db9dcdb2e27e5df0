"""Writing a pack: a cache, or a part of it, as one archive. docs/reference/cache-layout.md, "The pack format".

Guarantees
    Equal contents make equal bytes with one version of `zstandard`, whatever the machine, folder, umask or time. Each
    file has the bytes that the list states, and a pack is whole by itself: all that a file in it names is in it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import BinaryIO

from ..cache import layout
from ..cache.contents import Contents, Entry
from ..cache.crew import Crew
from ..errors import RefusedError, UsageError
from . import zstd
from .members import END, Member, constants, members
from .receive import read_verified, require_sound
from .source import Source

_READ_BYTES = 8 << 20

_MOST_COMPRESSORS = 4
_MOST_OTHERS = 6  # members that are no files of the list


def write_pack(
    source: Source,
    contents: Contents,
    out: BinaryIO,
    signature: bytes = b"",
    arrived: Callable[[int], None] = lambda size: None,
    is_beside: Callable[[str], bool] = lambda path: False,
) -> int:
    """Write those files of a source, and return how many bytes that took.

    `arrived` is told the bytes of each part that is written; `signature` is one over the list of just these files;
    `is_beside` says which paths a file may name that are not in the pack, of one that is a part of something larger.
    Raises `RefusedError` for what is not as the list says, whatever the source raises, and `OSError` if it can't be
    written.
    """
    if signature.endswith(b"\0"):
        raise RefusedError(source.name, "its signature is damaged: no text", "sign the list of contents again")
    if len(contents.entries) + _MOST_OTHERS > zstd.MOST_FRAMES:
        raise UsageError(f"`{source.name}` has more files than a pack can", "pack some of its builds: `--spec SPEC`")

    def is_there(path: str, size: int | None) -> bool:
        return contents.has(path, size) or is_beside(path)

    frames: list[tuple[int, int]] = []
    with Crew(min(_MOST_COMPRESSORS, os.cpu_count() or 1)) as compressors:

        def put(members_: Iterable[bytes]) -> None:
            given = [(compressors.give(partial(zstd.compressed, one)), len(one)) for one in members_]
            for number, size in given:
                frame = compressors.result(number)
                frames.append((len(frame), size))
                out.write(frame)

        put(Member.of(path, len(data)).render(data) for path, data in _top(contents, signature))
        for group in _groups(members(contents)):
            found = dict(read_verified(source, [entry for entry, _ in group]))
            for entry, _ in group:
                if entry.kind != "blobs":
                    require_sound(source.name, entry, found[entry], is_there)
            put(member.render(found[entry]) for entry, member in group)
            arrived(sum(entry.size for entry, _ in group))
        put([END])
    table = zstd.render_table(frames)
    out.write(table)
    return sum(packed for packed, _ in frames) + len(table)


def _top(contents: Contents, signature: bytes) -> Iterator[tuple[str, bytes]]:
    yield layout.SEAL, contents.render()
    if signature:
        yield layout.SIGNATURE, signature
    yield from constants()


def _groups(files: Iterable[tuple[Entry, Member]]) -> Iterator[list[tuple[Entry, Member]]]:
    """Yield files in groups that are read at a time, so that a source may give those of one in any order."""
    group: list[tuple[Entry, Member]] = []
    room = _READ_BYTES
    for entry, member in files:
        if group and entry.size > room:
            yield group
            group, room = [], _READ_BYTES
        group.append((entry, member))
        room -= entry.size
    if group:
        yield group

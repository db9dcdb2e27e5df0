"""Packs, good and bad, of synthetic kernels."""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import zstandard

from fa4_precompile.cache.contents import SCHEMA, Contents
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.store import Root
from fa4_precompile.carry.members import END, Member, constants
from fa4_precompile.carry.pack import write_pack
from fa4_precompile.carry.root import RootSource
from fa4_precompile.commands.pack import pack
from fa4_precompile.commands.unpack import unpack
from support import make_manifest, make_toolchain, numbered_record, publish_library, synthetic_blob

File = tuple[str, bytes]


def pack_root(path: Path, signature: bytes = b"") -> bytes:
    """Return the pack of a whole root."""
    out = io.BytesIO()
    source = RootSource(Root(path))
    write_pack(source, source.contents(), out, signature)
    return out.getvalue()


def files_of(path: Path) -> list[File]:
    """Return the files of a root in the order of a pack."""
    root = Root(path)
    return [(entry.path, root.file(entry)) for entry in RootSource(root).contents().in_order()]


def seal_of(files: Iterable[File]) -> bytes:
    """Return the list of contents of any files, whatever they are called."""
    lines = [f"{hashlib.sha256(data).hexdigest()} {len(data)} {path}" for path, data in sorted(files)]
    return "\n".join([SCHEMA, *lines, ""]).encode()


def member(path: str, data: bytes) -> bytes:
    """Return a member of a pack."""
    return Member.of(path, len(data)).render(data)


def rendered(files: Sequence[File], seal: bytes | None = None, signature: bytes = b"") -> list[bytes]:
    """Return the contents of the frames of a pack of any files."""
    top = [("seal", seal_of(files) if seal is None else seal)]
    if signature:
        top.append(("seal.dsse.json", signature))
    return [*(member(path, data) for path, data in (*top, *constants(), *files)), END]


def frame(content: bytes) -> bytes:
    """Return a frame."""
    return zstandard.ZstdCompressor(level=1).compress(content)


def table(sizes: Iterable[tuple[int, int]]) -> bytes:
    """Return the table of frames as the seekable format has it, written down a second time."""
    entries = b"".join(struct.pack("<II", *one) for one in sizes)
    number = len(entries) // 8
    return struct.pack("<II", 0x184D2A5E, len(entries) + 9) + entries + struct.pack("<IBI", number, 0, 0x8F92EAB1)


def assemble(contents: Sequence[bytes], packed: dict[int, bytes] | None = None) -> bytes:
    """Return a pack of frames with these contents, some of which are packed in a way of their own."""
    frames = [(packed or {}).get(number) or frame(content) for number, content in enumerate(contents)]
    return b"".join(frames) + table((len(one), len(content)) for one, content in zip(frames, contents, strict=True))


def pack_of(files: Sequence[File], seal: bytes | None = None) -> bytes:
    """Return a pack of any files, with any list of contents."""
    return assemble(rendered(files, seal))


def split(pack: bytes) -> tuple[list[bytes], list[bytes]]:
    """Return the frames of a pack, but for its table, and their contents."""
    number = struct.unpack("<I", pack[-9:-5])[0]
    sizes = list(struct.iter_unpack("<II", pack[-9 - 8 * number : -9]))
    frames, start = [], 0
    for length, _ in sizes:
        frames.append(pack[start : start + length])
        start += length
    contents = [zstandard.ZstdDecompressor().decompress(one) for one in frames]
    assert [len(content) for content in contents] == [size for _, size in sizes]
    assert table(sizes) == pack[start:]
    return frames, contents


def contents_of(path: Path) -> Contents:
    """Return the list of contents of a root."""
    return RootSource(Root(path)).contents()


def pack_file(root: Path, file: Path, is_replacing: bool = False) -> Path:
    """Pack a cache by the command, and return the file."""
    pack(file, root, None, None, None, is_replacing, False, False)
    return file


def unpack_file(file: Path, root: Path) -> Path:
    """Unpack a file by the command, and return the cache."""
    unpack(file, root, (), (), False)
    return root


def other_cache(path: Path, numbers: range) -> None:
    """Make a cache of synthetic kernels by hand, in an order of one's own."""
    publisher = Publisher(Root(path))
    publisher.create()
    for number in numbers:
        publisher.publish(numbered_record(number), synthetic_blob(number))
    publish_library(publisher, make_toolchain())
    publisher.publish_toolchain(make_toolchain())
    publisher.publish_manifest(make_manifest(*map(numbered_record, sorted(numbers))))

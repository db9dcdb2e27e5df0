"""Zstandard frames that stand alone, and the table that says where in a file they are.

The table is that of the Zstandard Seekable Format 0.1.0, in a frame that other programs skip.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from types import ModuleType

from ..errors import MachineError

LEVEL = 9
"""Measured on quickstart's 23 kernels (140 kB each) and the DSL's run-time library (44 MB), on one core: what is left,
and how fast it is written. Level 3: 23.5 % at 283 MB/s, 42.5 % at 177. Level 6: 22.1 % at 96, 39.5 % at 67. Level 9:
21.5 % at 56, 37.8 % at 42. Level 12: 21.4 % at 22, 37.3 % at 19. Level 19: 19.5 % at 3, 33.6 % at 2. Beyond 9 a pack
takes minutes for what a tenth of a second of the network does. Reading is as fast from all of them, 500 to 900 MB/s."""

MOST_FRAMES = 1 << 20
"""How many frames a file can have: more than any cache has files, and a table of 8 MiB."""

_SKIPPABLE = 0x184D2A5E
_SEEKABLE = 0x8F92EAB1
_HEAD_BYTES = 8
_FOOT_BYTES = 9
_ENTRY_BYTES = 8
_LEAST_FRAME_BYTES = 9


class FrameError(ValueError):
    """Bytes are not what they must be. Says what they are."""


def compressed(data: bytes) -> bytes:
    """Return a frame of bytes: of equal bytes an equal one, with the same `zstandard`."""
    made = _zstandard().ZstdCompressor(level=LEVEL, write_content_size=True, write_checksum=True, threads=0)
    frame: bytes = made.compress(data)
    return frame


def decompressor() -> Callable[[bytes | memoryview, int], bytes]:
    """Return a function of a frame and the size that it must come to, which returns its bytes.

    It takes no memory beyond that size. Raises `FrameError` for all but exactly one such frame.
    """
    zstandard = _zstandard()
    made = zstandard.ZstdDecompressor()

    def decompress(frame: bytes | memoryview, size: int) -> bytes:
        try:
            stated = zstandard.get_frame_parameters(frame)
            if stated.dict_id:
                raise FrameError("needs a dictionary")
            if stated.content_size != size:
                raise FrameError(f"does not state that it has {size:,} bytes")
            data: bytes = made.decompress(frame, max_output_size=size, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise FrameError(f"is damaged: {error}") from None
        if len(data) != size:
            raise FrameError(f"does not have {size:,} bytes")
        return data

    return decompress


def most_packed(size: int) -> int:
    """Return how long a frame of so many bytes can be, that was not made longer than it need be."""
    return size + (size >> 8) + 64


def render_table(frames: Iterable[tuple[int, int]]) -> bytes:
    """Return the table of frames, each of which is told by its size and that of its content."""
    entries = b"".join(struct.pack("<II", packed, size) for packed, size in frames)
    number = len(entries) // _ENTRY_BYTES
    head = struct.pack("<II", _SKIPPABLE, len(entries) + _FOOT_BYTES)
    return b"".join((head, entries, struct.pack("<IBI", number, 0, _SEEKABLE)))


def read_table(read: Callable[[int, int], bytes], length: int) -> list[tuple[int, int]]:
    """Return the table of a file of some length that is read by start and length. Raises `FrameError`.

    Guarantees
        The frames and the table take up the file, to the byte.
    """
    if length < _HEAD_BYTES + _FOOT_BYTES:
        raise FrameError("it is too short")
    number, descriptor, magic = struct.unpack("<IBI", read(length - _FOOT_BYTES, _FOOT_BYTES))
    if magic != _SEEKABLE or descriptor:
        raise FrameError("it does not end in a table of frames")
    if number > MOST_FRAMES or number * (_LEAST_FRAME_BYTES + _ENTRY_BYTES) > length:
        raise FrameError(f"its table tells of {number:,} frames, more than there can be")
    start = length - _FOOT_BYTES - number * _ENTRY_BYTES - _HEAD_BYTES
    table = read(start, length - start) if start >= 0 else b""
    frames = list(struct.iter_unpack("<II", table[_HEAD_BYTES:-_FOOT_BYTES]))
    if render_table(frames) != table or sum(packed for packed, _ in frames) != start:
        raise FrameError("its table of frames is not that of this file")
    return frames


def _zstandard() -> ModuleType:
    try:
        import zstandard
    except ImportError as error:
        raise MachineError(
            f"packs need the package `zstandard`, which can't be imported: {error}",
            "`pip install 'fa4-precompile[ship]'`",
        ) from None
    return zstandard

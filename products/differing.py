"""What two cubins differ in, for people who have to find out why."""

from __future__ import annotations

import io
from collections.abc import Sequence

from ..cache.record import Function
from .cubin import Cubin


def differences(one: Cubin, other: Cubin) -> list[str]:
    """Return what two cubins differ in, a phrase each: size, functions, sections. Nothing if they are equal."""
    if one.image == other.image:
        return []
    found = [] if len(one.image) == len(other.image) else [f"{len(one.image)} and {len(other.image)} bytes"]
    return [*found, *_functions(one.functions, other.functions), *_sections(one.image, other.image)]


def _functions(one: Sequence[Function], other: Sequence[Function]) -> list[str]:
    if [function.name for function in one] != [function.name for function in other]:
        return ["functions of other names"]
    return [
        f"{getattr(left, field)} and {getattr(right, field)} {words} in `{left.name[:60]}`"
        for left, right in zip(one, other, strict=True)
        for field, words in (
            ("registers", "registers"),
            ("stack_bytes", "bytes of stack"),
            ("shared_bytes", "bytes of static shared memory"),
        )
        if getattr(left, field) != getattr(right, field)
    ]


def _sections(one: bytes, other: bytes) -> list[str]:
    left, right = _contents(one), _contents(other)
    names = [name for name in left | right if left.get(name) != right.get(name)]
    return [f"sections {', '.join(f'`{name[:60]}`' for name in names)}"] if names else ["the ELF headers"]


def _contents(image: bytes) -> dict[str, bytes]:
    from elftools.elf.elffile import ELFFile

    return {section.name: section.data() for section in ELFFile(io.BytesIO(image)).iter_sections()}

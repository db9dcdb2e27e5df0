"""Looking into a blob: the cubin, the SM that it is for, and what its functions use.

A cubin is a whole ELF image inside the data of the host's shared object. Registers and stack are in its `.nv.info`
section; NVIDIA does not document the format, so the tests compare with what `cuobjdump -res-usage` prints.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ..cache.record import Function
from ..errors import ProductError

_ELF_MAGIC = b"\x7fELF"
_EM_CUDA = 190
_MACHINE_OFFSET = 18  # of e_machine in an ELF header

# Where e_flags has the SM number, by ABI version. Read off cubins of the DSL 4.8.1: up to SM 90 it writes version 7
# (sm_90a: 0x5a0d5a), from SM 100 on version 8 (sm_100a: 0x600640a).
_SM_SHIFT = MappingProxyType({7: 0, 8: 8})

# Entries of .nv.info: format, attribute, then a 16-bit value, or a 16-bit length and that many bytes.
_FORMAT_WITH_LENGTH = 4
_REGISTER_COUNT = 0x2F
_FRAME_SIZE = 0x11
_MIN_STACK_SIZE = 0x12


@dataclass(frozen=True)
class Cubin:
    """A cubin: its bytes, the SM number in its ELF header, and its functions in the order of their names."""

    image: bytes
    sm: int
    functions: tuple[Function, ...]


def read_cubin(blob: bytes) -> Cubin:
    """Return the cubin in a blob. Raises `ProductError` if there is not exactly one."""
    images = list(_images(blob))
    if len(images) != 1:
        raise ProductError(f"the compiled object holds {len(images)} cubins instead of one")
    elf = _elf(images[0])
    return Cubin(images[0], _sm(elf), tuple(_functions(elf)))


def exported_symbols(blob: bytes) -> set[str]:
    """Return the names that a shared object defines for others. Raises `ProductError` if it is none."""
    return {name for name, is_defined, _ in _dynamic_symbols(blob) if is_defined}


def imported_symbols(blob: bytes) -> set[str]:
    """Return the names that others must define for a shared object to load. Raises `ProductError` if it is none."""
    return {name for name, is_defined, is_weak in _dynamic_symbols(blob) if not is_defined and not is_weak}


def _dynamic_symbols(blob: bytes) -> Iterator[tuple[str, bool, bool]]:
    """Yield name, whether it is defined here, and whether it may be missing."""
    if not blob.startswith(_ELF_MAGIC):
        raise ProductError("the linker produced no ELF file")
    table = _elf(blob).get_section_by_name(".dynsym")
    for symbol in table.iter_symbols() if table is not None else ():
        if symbol.name:
            yield symbol.name, symbol["st_shndx"] != "SHN_UNDEF", symbol["st_info"]["bind"] == "STB_WEAK"


def _elf(image: bytes) -> Any:
    # Imported here, as it is in the extra `build` only, and a build with nothing to do needs none of it.
    from elftools.elf.elffile import ELFFile

    return ELFFile(io.BytesIO(image))


def _sm(elf: Any) -> int:
    version, flags = elf.header["e_ident"]["EI_ABIVERSION"], int(elf.header["e_flags"])
    if version not in _SM_SHIFT:
        raise ProductError(f"the cubin has ELF ABI version {version}; it is not known where that one keeps the SM")
    return flags >> _SM_SHIFT[version] & 0xFF


def _images(blob: bytes) -> Iterator[bytes]:
    start = blob.find(_ELF_MAGIC, 1)
    while start > 0:
        if struct.unpack_from("<H", blob, start + _MACHINE_OFFSET)[0] == _EM_CUDA:
            image = blob[start:]
            size = _size(_elf(image))
            yield image[:size]
            start += size
        else:
            start += len(_ELF_MAGIC)
        start = blob.find(_ELF_MAGIC, start)


def _size(elf: Any) -> int:
    header = elf.header
    ends = [
        header["e_shoff"] + header["e_shnum"] * header["e_shentsize"],
        header["e_phoff"] + header["e_phnum"] * header["e_phentsize"],
        *(s["sh_offset"] + s["sh_size"] for s in elf.iter_sections() if s["sh_type"] != "SHT_NOBITS"),
    ]
    return int(max(ends))


def _functions(elf: Any) -> Iterator[Function]:
    symbols = elf.get_section_by_name(".symtab")
    info = elf.get_section_by_name(".nv.info")
    if symbols is None or info is None:
        raise ProductError("the cubin has no symbol table or no .nv.info section")
    attributes: dict[str, dict[int, int]] = {}
    for attribute, symbol, value in _info_entries(info.data()):
        attributes.setdefault(symbols.get_symbol(symbol).name, {})[attribute] = value
    for name in sorted(attributes):
        if elf.get_section_by_name(f".text.{name}") is None:
            continue  # a device function that was inlined
        found = attributes[name]
        shared = elf.get_section_by_name(f".nv.shared.{name}")
        yield Function(
            name=name,
            registers=found.get(_REGISTER_COUNT, 0),
            stack_bytes=max(found.get(_FRAME_SIZE, 0), found.get(_MIN_STACK_SIZE, 0)),
            shared_bytes=int(shared["sh_size"]) if shared is not None else 0,
        )


def _info_entries(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (attribute, symbol index, value) of the entries that tell something about a function."""
    offset = 0
    while offset + 4 <= len(data):
        format_, attribute, length = struct.unpack_from("<BBH", data, offset)
        offset += 4
        if format_ != _FORMAT_WITH_LENGTH:
            continue
        if attribute in (_REGISTER_COUNT, _FRAME_SIZE, _MIN_STACK_SIZE) and length == 8:
            symbol, value = struct.unpack_from("<II", data, offset)
            yield attribute, symbol, value
        offset += length

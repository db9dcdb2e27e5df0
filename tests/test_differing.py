"""What two cubins differ in, in words."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from fa4_precompile.products.cubin import Cubin, read_cubin
from fa4_precompile.products.differing import differences
from product import records

pytestmark = pytest.mark.compiles


@pytest.fixture
def cubins(small_cache: Path) -> list[Cubin]:
    """The cubins of the small cache."""
    blobs = [next(small_cache.glob(f"blobs/sha256/*/{record.blob}")) for record in records(small_cache)]
    return [read_cubin(blob.read_bytes()) for blob in blobs]


def test_differences_of_a_cubin_and_itself_are_none(cubins: list[Cubin]) -> None:
    assert [differences(one, one) for one in cubins] == [[]] * len(cubins)


def test_differences_of_one_instruction_are_in_the_section_of_its_function(cubins: list[Cubin]) -> None:
    cubin = cubins[0]
    code = bytearray(cubin.image)
    name = f".text.{cubin.functions[0].name}"
    place = cubin.image.index(_section(cubin, name))
    code[place + 100] ^= 1
    assert differences(cubin, replace(cubin, image=bytes(code))) == [f"sections `{name[:60]}`"]


def test_differences_of_two_kernels_begin_with_their_sizes(cubins: list[Cubin]) -> None:
    one, other = cubins[0], next(cubin for cubin in cubins if len(cubin.image) != len(cubins[0].image))
    assert differences(one, other)[0] == f"{len(one.image)} and {len(other.image)} bytes"


def test_differences_of_registers_are_told_by_function(cubins: list[Cubin]) -> None:
    cubin, function = cubins[0], cubins[0].functions[0]
    other = replace(cubin, image=cubin.image + b"\0", functions=(replace(function, registers=function.registers + 8),))
    told = f"{function.registers} and {function.registers + 8} registers in `{function.name[:60]}`"
    assert told in differences(replace(cubin, functions=(function,)), other)


def _section(cubin: Cubin, name: str) -> bytes:
    data: bytes = ELFFile(io.BytesIO(cubin.image)).get_section_by_name(name).data()
    return data

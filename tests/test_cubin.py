"""Reading cubins, against NVIDIA's own tool."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from fa4_precompile.errors import ProductError
from fa4_precompile.products.cubin import exported_symbols, read_cubin
from product import cuobjdump, records


@pytest.mark.compiles
def test_registers_stack_and_shared_memory_are_those_that_cuobjdump_prints(small_cache: Path, tmp_path: Path) -> None:
    compared = 0
    for record in records(small_cache):
        blob = next(small_cache.glob(f"blobs/sha256/*/{record.blob}")).read_bytes()
        path = tmp_path / f"{record.id}.cubin"
        path.write_bytes(read_cubin(blob).image)
        printed = subprocess.run([cuobjdump(), "-res-usage", path], capture_output=True, text=True, check=True).stdout
        for function in record.functions:
            usage = re.search(rf"Function {re.escape(function.name)}:\s+REG:(\d+) STACK:(\d+) SHARED:(\d+)", printed)
            assert usage is not None, printed
            found = (function.registers, function.stack_bytes, function.shared_bytes)
            assert found == tuple(int(number) for number in usage.groups())
            compared += 1
    assert compared >= len(records(small_cache))


@pytest.mark.compiles
def test_cubin_is_found_whole_and_sections_end_where_its_image_ends(small_cache: Path) -> None:
    blob = next(small_cache.glob(f"blobs/sha256/*/{records(small_cache)[0].blob}")).read_bytes()
    image = read_cubin(blob).image
    assert blob.count(image) == 1
    assert read_cubin(b"\0" * 64 + image).image == image


def test_blob_without_a_cubin_is_refused() -> None:
    with pytest.raises(ProductError, match="0 cubins"):
        read_cubin(b"\x7fELF" + b"\0" * 200)


def test_bytes_that_are_no_elf_file_export_nothing_but_an_error() -> None:
    with pytest.raises(ProductError, match="no ELF file"):
        exported_symbols(b"text")

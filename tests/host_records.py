"""Running a kernel's host code on the processor that it was made for, without a GPU: what it asks of the run time.

`hosts/` has the program that loads a blob and calls its function, and a run time that records. For another processor
than this machine's it is compiled by a cross compiler, and runs under qemu.
"""

from __future__ import annotations

import io
import re
import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from host_values import Call, tensors_of

from fa4_precompile.products.cubin import read_cubin
from fa4_precompile.providers.packages import package_folder

Record = tuple[str, ...]
"""What a call does, a line for each thing."""

_SOURCES = Path(__file__).parent / "hosts"
_FLAGS = ("-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-rdynamic")
COMPILERS: Mapping[str, Sequence[str]] = MappingProxyType({"x86_64": ("gcc",), "aarch64": ("aarch64-linux-gnu-gcc",)})
RUNNERS: Mapping[str, Sequence[str]] = MappingProxyType(
    {"x86_64": (), "aarch64": ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu")}
)

_UNWRITTEN = ".."
_WORD_DIGITS = 16  # of 64 bits
_TIME_LIMIT_S = 300

# What a cubin is wrapped in: a number, and how many bytes come before and after a place.
_FAT_BINARY = struct.pack("<I", 0xBA55ED50)
_FNV_START, _FNV_PRIME, _FNV_MASK = 0xCBF29CE484222325, 0x100000001B3, 2**64 - 1

# Entries of .nv.info.<function>: a format, an attribute, and a value of 16 bits or as many bytes as these say.
_WITH_LENGTH = 4
_PARAMETER = 0x17
_PARAMETERS_BYTES = 0x19
_SIZE_SHIFT = 18


@dataclass(frozen=True)
class Host:
    """The program that calls kernels, for one kind of processor."""

    machine: str
    driver: Path

    @classmethod
    def make(cls, machine: str, folder: Path) -> Host:
        """Compile it, in a folder."""
        tvm_ffi = package_folder("tvm_ffi")
        assert tvm_ffi is not None
        driver = folder / f"driver-{machine}"
        sources = sorted(map(str, _SOURCES.glob("*.[cS]")))
        command = [*COMPILERS[machine], *_FLAGS, "-I", str(tvm_ffi / "include"), *sources, "-o", str(driver), "-ldl"]
        subprocess.run(command, check=True)
        return cls(machine, driver)

    def records(self, blob: Path, symbol: str, calls: Sequence[Call]) -> list[Record]:
        """Call a blob's function, and return what each call does. A blob that can't be loaded fails the test."""
        words = [
            word for name, sizes in parameter_sizes(blob).items() for word in ("function", name, len(sizes), *sizes)
        ]
        words += [word for number, call in enumerate(calls) for word in call.words(number)]
        done = subprocess.run(
            [*RUNNERS[self.machine], str(self.driver), str(blob.absolute()), symbol],
            input=" ".join(map(str, words)),
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIME_LIMIT_S,
        )
        assert done.returncode == 0, done.stderr
        runs = _runs(done.stdout)
        return [_record(call, *runs[number]) for number, call in enumerate(calls)]


def _runs(output: str) -> Mapping[int, Sequence[Sequence[str]]]:
    """Return the lines of the calls, by their number, of each time that one was made."""
    found: dict[int, list[list[str]]] = {}
    for line in output.splitlines():
        if line.startswith("call "):
            lines: list[str] = []
            found.setdefault(int(line.split()[1]), []).append(lines)
        else:
            lines.append(line)
    return found


def _record(call: Call, one: Sequence[str], *others: Sequence[str]) -> Record:
    """Return the record of a call, which was made twice if it launched something.

    What differs is what was on the stack before: padding of a kernel's parameters, which nobody wrote.
    """
    (other,) = others or (one,)
    names = {f"{tensor.pointer:016x}": name for name, tensor in tensors_of(call.values) if tensor.pointer}
    assert len(one) == len(other), (call.name, one, other)
    return tuple(_line(*lines, names) for lines in zip(one, other, strict=True))


def _line(one: str, other: str, names: Mapping[str, str]) -> str:
    head, _, digits = one.rpartition(" ")
    if not head.startswith(("  parameter", "  attribute")):
        assert one == other
        return one
    other_head, _, other_digits = other.rpartition(" ")
    assert head == other_head
    pairs = zip(_pairs(digits), _pairs(other_digits), strict=True)
    written = [a if a == b else _UNWRITTEN for a, b in pairs]
    numbers = ["".join(reversed(written[at : at + 8])) for at in range(0, len(written), 8)]
    return " ".join([head, *(names.get(number, number) for number in numbers)])


def _pairs(digits: str) -> list[str]:
    return re.findall("..", digits)


def loads(blob: Path) -> str:
    """Return the record of loading the cubin of a blob."""
    data = blob.read_bytes()
    assert data.count(_FAT_BINARY) == 1
    start = data.index(_FAT_BINARY)
    head, tail = struct.unpack_from("<HQ", data, start + 6)
    image = data[start : start + head + tail]
    assert read_cubin(data).image in image
    found = _FNV_START
    for byte in image:
        found = (found ^ byte) * _FNV_PRIME & _FNV_MASK
    return f"cudaLibraryLoadData {len(image)} bytes {found:016x} options 0 0 0 0 0 0"


def parameter_sizes(blob: Path) -> Mapping[str, Sequence[int]]:
    """Return the bytes of each parameter of the GPU functions in a blob, in the order of the parameters."""
    from elftools.elf.elffile import ELFFile

    elf = ELFFile(io.BytesIO(read_cubin(blob.read_bytes()).image))
    prefix = ".nv.info."
    sections = [section for section in elf.iter_sections() if section.name.startswith(prefix)]
    return {section.name.removeprefix(prefix): _sizes(section.data()) for section in sections}


def _sizes(entries: bytes) -> Sequence[int]:
    found: dict[int, tuple[int, int]] = {}
    total = 0
    for attribute, length, data in _entries(entries):
        if attribute == _PARAMETER:
            _, place, offset, flags = struct.unpack("<IHHI", data)
            found[place] = offset, flags >> _SIZE_SHIFT
        if attribute == _PARAMETERS_BYTES:
            total = length
    assert sorted(found) == list(range(len(found)))
    assert max(offset + size for offset, size in found.values()) == total
    return [found[place][1] for place in range(len(found))]


def _entries(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        kind, attribute, length = struct.unpack_from("<BBH", data, at)
        at += 4
        size = length if kind == _WITH_LENGTH else 0
        yield attribute, length, data[at : at + size]
        at += size

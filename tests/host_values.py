"""Calls of a kernel's host code in words that `hosts/driver.c` reads.

The words of a call are a number by which the driver's output names it, the settings in the order of `Call.words`, and
its arguments. An argument is a kind and what it has: `none`; `int`, `bool`, `float` or `str` and a value; `pointer`, an
opaque one, or `address`, one of a tensor's description, and a number; `array`, how many, and these; `tensor`, a
description, or `object`, TVM-FFI's own tensor, and its words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

CUDA = 2

_CODES: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "bfloat16": (4, 16),
        "bool": (6, 8),
        "float16": (2, 16),
        "float32": (2, 32),
        "float8_e4m3fn": (10, 8),
        "float8_e5m2": (12, 8),
        "int32": (0, 32),
        "int64": (0, 64),
        "uint8": (1, 8),
    }
)
"""Of torch's types, DLPack's code and the bits."""

# Where tensors are said to be: of each argument another, and so far apart that none reaches the next.
_FIRST_POINTER = 0x7000_0000_0000
_APART = 0x100_0000_0000
_MOST_ITEMS = 16


@dataclass(frozen=True)
class Tensor:
    """What is told of a tensor: shape and strides in elements, no strides for a dense one; offset in bytes."""

    code: int
    bits: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    pointer: int
    lanes: int = 1
    device_type: int = CUDA
    device: int = 0
    byte_offset: int = 0
    is_object: bool = False

    def words(self) -> Iterator[object]:
        """Yield its words."""
        yield "object" if self.is_object else "tensor"
        yield from (self.code, self.bits, self.lanes, self.device_type, self.device, self.pointer, self.byte_offset)
        yield from (len(self.shape), *self.shape, int(self.strides is not None), *(self.strides or ()))


@dataclass(frozen=True)
class Raw:
    """A pointer: an opaque one, or where a tensor's description is said to be."""

    kind: str
    address: int

    def words(self) -> Iterator[object]:
        """Yield its words."""
        yield from (self.kind, self.address)


Value = Any
"""None, a bool, an int, a float, a str of letters, `Tensor`, `Raw`, or a tuple of these."""


@dataclass(frozen=True)
class Call:
    """A call, and what it is made under.

    Attributes:
        name: what is right or wrong with it, for people.
        values: the arguments.
        device: the device that is current before.
        with_initializer: call the blob's initializer first.
        times: how often it is made, one after the other.
        failing: a function of the run time, by its name in a record.
        failure: the error that it returns.
        succeeding: how often it does not do so yet.
    """

    name: str
    values: tuple[Value, ...]
    device: int = 0
    with_initializer: bool = False
    times: int = 1
    failing: str = "-"
    failure: int = 0
    succeeding: int = 0

    def words(self, number: int) -> Iterator[object]:
        """Yield its words."""
        yield from ("call", number, self.device, int(self.with_initializer), self.times)
        yield from (self.failing, self.failure, self.succeeding, len(self.values))
        for value in self.values:
            yield from _words(value)


def _words(value: Value) -> Iterator[object]:
    if value is None:
        yield "none"
    elif isinstance(value, (Tensor, Raw)):
        yield from value.words()
    elif isinstance(value, tuple):
        yield from ("array", len(value))
        for item in value:
            yield from _words(item)
    elif isinstance(value, float):
        yield from ("float", value.hex())
    else:
        yield from (type(value).__name__, int(value) if isinstance(value, bool) else value)


def described(arguments: Sequence[Any]) -> tuple[Value, ...]:
    """Return the arguments of a call with torch's tensors as they are told to a kernel, each at a place of its own."""
    return tuple(_described(one, _FIRST_POINTER + place * _APART) for place, one in enumerate(arguments))


def _described(argument: Any, pointer: int) -> Value:
    if isinstance(argument, (list, tuple)):
        assert len(argument) <= _MOST_ITEMS, argument
        step = _APART // _MOST_ITEMS
        return tuple(_described(item, pointer + place * step) for place, item in enumerate(argument))
    if hasattr(argument, "stride"):
        code, bits = _CODES[str(argument.dtype).removeprefix("torch.")]
        place = pointer + argument.storage_offset() * argument.element_size()
        return Tensor(code, bits, tuple(argument.shape), tuple(argument.stride()), place)
    assert argument is None or isinstance(argument, (bool, int, float, str)), argument
    return argument


def tensors_of(values: Sequence[Value], name: str = "#") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors among arguments, with what the kernel's own errors call their arguments, `#3`."""
    for place, value in enumerate(values):
        own = f"{name}{place}" if name == "#" else f"{name}[{place}]"
        if isinstance(value, Tensor):
            yield own, value
        elif isinstance(value, tuple):
            yield from tensors_of(value, own)


def with_tensors(values: tuple[Value, ...], **changes: Any) -> tuple[Value, ...]:
    """Return arguments whose tensors all have these fields changed."""
    return tuple(
        replace(value, **changes)
        if isinstance(value, Tensor)
        else with_tensors(value, **changes)
        if isinstance(value, tuple)
        else value
        for value in values
    )

"""What a call of a kernel can be wrong in, and the errors that the run time can give it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from host_values import Call, Raw, Tensor, Value, with_tensors

_CPU, _UNKNOWN_DEVICE = 1, 99
_NO_MEMORY, _LAUNCH_FAILURE = 2, 719

# The functions of the run time that can fail, by their names in a record.
_LOADING = (
    "cudaLibraryLoadData",
    "cudaLibraryGetKernel",
    "cuKernelGetAttribute",
    "cudaKernelSetAttributeForDevice",
    "cudaDeviceGetAttribute",
)
_LAUNCHING = ("cudaGetDevice", "cudaSetDevice", "cudaLaunchKernelEx")


def good_calls(values: tuple[Value, ...]) -> Iterator[Call]:
    """Yield a call that FA4 makes, and others that are as good."""
    yield Call("as FlashAttention makes it", values)
    yield Call("twice", values, times=2)
    yield Call("after the initializer", values, with_initializer=True)
    yield Call("TVM-FFI's own tensors", with_tensors(values, is_object=True))
    yield Call("on the other device", with_tensors(values, device=1))
    yield Call("on a device that is not current", values, device=1)


def failing_calls(values: tuple[Value, ...]) -> Iterator[Call]:
    """Yield good calls in which a function of the run time fails."""
    elsewhere = with_tensors(values, device=1)
    for name in _LOADING:
        for succeeding in range(3):
            words = f"{name} fails after {succeeding}"
            yield Call(words, values, failing=name, failure=_NO_MEMORY, succeeding=succeeding, times=2)
            with_initializer = replace(Call(words, values), name=f"{words}, in the initializer", with_initializer=True)
            yield replace(with_initializer, failing=name, failure=_NO_MEMORY, succeeding=succeeding)
    for name in _LAUNCHING:
        for succeeding in range(2):
            for failure in (_LAUNCH_FAILURE, -1):
                words = f"{name} fails by {failure} after {succeeding}"
                yield Call(words, elsewhere, failing=name, failure=failure, succeeding=succeeding, times=2)


def wrong_calls(values: tuple[Value, ...]) -> Iterator[Call]:
    """Yield calls that are wrong in one thing."""
    yield Call("no arguments", ())
    yield Call("the last argument is missing", values[:-1])
    yield Call("the first argument is missing", values[1:])
    yield Call("an argument too many", (*values, None))
    for place, value in enumerate(values):
        for what, wrong in _wrong(value):
            yield Call(f"#{place}: {what}", (*values[:place], wrong, *values[place + 1 :]))


def _wrong(value: Value) -> Iterator[tuple[str, Value]]:
    """Yield what is wrong with a value, and the value."""
    yield from ((what, wrong) for what, wrong in _ANYTHING if type(wrong) is not type(value))
    if isinstance(value, Tensor):
        yield from _wrong_tensors(value)
    elif isinstance(value, tuple):
        yield "an item too many", (*value, None)
        yield "an item is missing", value[:-1]
        for place, item in enumerate(value):
            for what, wrong in _wrong(item):
                yield f"[{place}] {what}", (*value[:place], wrong, *value[place + 1 :])
    elif isinstance(value, float):
        yield from (("not a number", math.nan), ("infinite", math.inf), ("minus zero", -0.0), ("too small", 1e-300))
    elif isinstance(value, int):
        yield from (("negative", -1), ("above 32 bits", 2**31), ("below 32 bits", -(2**31) - 1), ("64 bits", 2**63 - 1))


_TENSOR = Tensor(0, 32, (2,), (1,), 0x6000_0000_0000)
_ANYTHING: tuple[tuple[str, Any], ...] = (
    ("None", None),
    ("an int", 7),
    ("a bool", True),
    ("a float", 0.5),
    ("a str", "text"),
    ("an opaque pointer", Raw("pointer", 0x6000_0000_0000)),
    ("a tensor", _TENSOR),
    ("an empty tuple", ()),
    ("a tensor in a tuple", (_TENSOR,)),
)


def _wrong_tensors(tensor: Tensor) -> Iterator[tuple[str, Value]]:
    yield "no description of a tensor", Raw("address", 0)
    changes: list[tuple[str, dict[str, Any]]] = [
        ("another type's code", {"code": (tensor.code + 1) % 3}),
        ("another type's bits", {"bits": tensor.bits * 2}),
        ("two lanes", {"lanes": 2}),
        ("on the CPU", {"device_type": _CPU}),
        ("on a device of no kind", {"device_type": _UNKNOWN_DEVICE}),
        ("on the other device", {"device": 1}),
        ("on a device that is not there", {"device": -1}),
        ("a null pointer", {"pointer": 0}),
        *((f"{count} bytes off", {"pointer": tensor.pointer + count}) for count in (1, 2, 4, 8, 16)),
        *((f"an offset of {count} bytes", {"byte_offset": count}) for count in (2, 16)),
        ("no dimension", {"shape": (), "strides": ()}),
        ("a dimension more", {"shape": (*tensor.shape, 1), "strides": (*_strides(tensor), 1)}),
        ("a dimension less", {"shape": tensor.shape[:-1], "strides": _strides(tensor)[:-1]}),
        ("no strides", {"strides": None}),
    ]
    for place, (size, stride) in enumerate(zip(tensor.shape, _strides(tensor), strict=True)):
        sizes = dict.fromkeys((0, -1, size + 1, 2**31 - 1, 2**31))
        changes += [(f"size {wrong} at {place}", {"shape": _put(tensor.shape, place, wrong)}) for wrong in sizes]
        strides = dict.fromkeys((0, -stride, stride + 1, stride + 8, 2**33))
        changes += [
            (f"stride {wrong} at {place}", {"strides": _put(_strides(tensor), place, wrong)}) for wrong in strides
        ]
    yield from ((what, replace(tensor, **fields)) for what, fields in changes)
    yield "an offset without its pointer", replace(tensor, pointer=16, byte_offset=tensor.pointer - 16)


def _strides(tensor: Tensor) -> tuple[int, ...]:
    assert tensor.strides is not None
    return tensor.strides


def _put(numbers: tuple[int, ...], place: int, number: int) -> tuple[int, ...]:
    return (*numbers[:place], number, *numbers[place + 1 :])

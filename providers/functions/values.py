"""Values as text, and what instances hold: by their types, and not by what they say of themselves."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from types import GetSetDescriptorType, MappingProxyType, MemberDescriptorType
from typing import Any

from .pinned import HEAP_TYPE

PLAIN_BASES = (bool, int, float, complex, str, bytes, tuple, list, dict, set, frozenset, object)
# What each of them holds, whatever a class that is made of it says.
_HELD: Mapping[type, Callable[[Any], Any]] = MappingProxyType(
    {
        int: int.__index__,
        float: float.__float__,
        complex: lambda value: complex(complex.real.__get__(value), complex.imag.__get__(value)),
        str: str.__str__,
        bytes: lambda value: bytes.__getitem__(value, slice(None)),
        tuple: lambda value: tuple(tuple.__iter__(value)),
        list: lambda value: list(list.__iter__(value)),
        dict: lambda value: dict(dict.items(value)),
        set: lambda value: set(set.__iter__(value)),
        frozenset: lambda value: frozenset(frozenset.__iter__(value)),
    }
)
_NUMBERS = "biufcSU"  # kinds of numpy's whose values are plain; of others the unit would be lost
# Of members and of partial functions, what is told otherwise or tells nothing.
_OF_MEMBERS = ("_name_", "_value_", "__objclass__", "_sort_order_", "_inverted_")
_OF_WRAPPERS = (
    *("__annotations__", "__cute_hash__", "__doc__", "__module__", "__name__", "__qualname__", "__type_params__"),
    *("__wrapped__", "cache_parameters"),
)
_OF_LAYOUT = ("__dict__", "__weakref__")


def plain(value: object) -> str | None:
    """Return the text of a value that holds nothing else, by its exact type: `True` is not 1 to a kernel."""
    if value is None or value is Ellipsis or value is NotImplemented:
        return repr(value)
    kind = type(value)
    if kind in (bool, int):
        return f"{kind.__name__} {value}"
    if kind is float:
        assert isinstance(value, float)
        return f"float {_hex(value)}"
    if kind is complex:
        assert isinstance(value, complex)
        return f"complex {_hex(value.real)} {_hex(value.imag)}"
    if kind is str:
        return f"str {value!a}"
    if kind is bytes:
        assert isinstance(value, bytes)
        return f"bytes {value.hex()}"
    if kind is range:
        return repr(value)
    return None


def _hex(number: float) -> str:
    return number.hex() if number == number else struct.pack(">d", number).hex()


def known(value: Any) -> str | None:
    """Return the text of a number or type of torch's or numpy's."""
    cls = type(value)
    kind = f"{cls.__module__}.{cls.__qualname__}"
    if kind == "torch.dtype":
        return f"{kind} {value}"
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None and issubclass(cls, numpy.dtype) and value.kind in _NUMBERS:
        return f"numpy.dtype {value.str}"
    if cls.__module__ == "numpy" and issubclass(cls, numpy.generic) and value.dtype.kind in _NUMBERS:
        text = plain(value.item())
        return f"{kind} {text}" if text is not None else None
    return None


def held_plainly(value: Any) -> Any:
    """Return what an instance of a class that is made of a plain one holds as such; None if it is made of none."""
    base = next(base for base in PLAIN_BASES if issubclass(type(value), base))
    return None if base is object else _HELD[base](value)


def is_in_pythons_hands(cls: type) -> bool:
    """Return whether instances hold nothing for a class but what Python shows: none is by a library in C."""
    if not cls.__flags__ & HEAP_TYPE:
        return cls in PLAIN_BASES
    if type(vars(cls).get("__dict__")) not in (type(None), GetSetDescriptorType):
        return False  # nobody else leads to what its instances hold
    base = cls.__base__
    shown = [name for name, one in vars(cls).items() if type(one) is MemberDescriptorType or name in _OF_LAYOUT]
    hidden = cls.__basicsize__ - (base.__basicsize__ if base is not None else 0)
    return hidden <= struct.calcsize("P") * len(shown) and not any(
        type(one) is GetSetDescriptorType and name not in _OF_LAYOUT for name, one in vars(cls).items()
    )


def state(value: Any) -> Iterator[tuple[str, Any]]:
    """Return the attributes that an instance has of its own, whatever its class says of them."""
    for cls in type(value).__mro__:
        for name, one in vars(cls).items():
            if type(one) is MemberDescriptorType:
                try:
                    yield name, one.__get__(value)
                except AttributeError:
                    continue
            elif name == "__dict__" and type(one) is GetSetDescriptorType:
                held = {name: held for name, held in one.__get__(value).items() if name != "__cute_hash__"}
                yield from held.items()


def of_member(member: Any) -> Iterator[tuple[str, Any]]:
    """Return the attributes that a member of an enum was given."""
    return ((name, held) for name, held in sorted(state(member)) if name not in _OF_MEMBERS)


def of_wrapper(wrapper: Any) -> Iterator[tuple[str, Any]]:
    """Return the attributes that a partial or cached function was given."""
    return ((name, held) for name, held in sorted(vars(wrapper).items()) if name not in _OF_WRAPPERS)

"""What the author of a class wrote, and what the standard library made of it."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Iterator, Sequence
from types import FunctionType
from typing import Any

# What a class has besides what its author wrote, under some Pythons more than under others.
_OF_ALL_CLASSES = frozenset(
    f"__{name}__"
    for name in (
        *(
            "abstractmethods",
            "annotate",
            "callable_proto_members_only",
            "annotate_func",
            "annotations",
            "annotations_cache",
            "classdictcell",
        ),
        *(
            "dataclass_fields",
            "dataclass_params",
            "dict",
            "doc",
            "firstlineno",
            "module",
            "orig_bases",
            "non_callable_proto_members",
        ),
        *("parameters", "protocol_attrs", "qualname", "slots", "static_attributes", "type_params", "weakref"),
    )
) | {"_abc_impl", "_is_protocol", "_is_runtime_protocol"}

# What the standard library makes for dataclasses and named tuples, of what their author wrote.
_MADE = frozenset(
    f"__{name}__"
    for name in (
        *("delattr", "eq", "ge", "getnewargs", "getstate", "gt", "hash", "init", "le", "lt", "ne", "new", "replace"),
        *("repr", "setattr", "setstate"),
    )
) | {"_asdict", "_make", "_replace"}
_METHODS = (staticmethod, classmethod)
_MAKERS = "collections", "dataclasses", "enum", "reprlib", "typing"


def members(cls: type) -> Iterator[tuple[str, Any]]:
    """Return what the author of a class wrote into it, by name."""
    for name, value in sorted(vars(cls).items()):
        if name not in _OF_ALL_CLASSES and not _is_made(cls, name, value):
            yield name, value


def fields(cls: Any) -> tuple[Sequence[tuple[str, Sequence[Any]]], str]:
    """Return the default of each field of a dataclass, if it has one, and how its instances are made and compared."""
    made, told, given = cls.__dataclass_params__, [], []
    for one in cls.__dataclass_fields__.values():  # also those that are arguments only
        defaults = [value for value in (one.default, one.default_factory) if value is not dataclasses.MISSING]
        given.append((one.name, defaults))
        told.append([one.name, one._field_type.name, one.init, one.compare, one.hash, one.kw_only is True])
    return given, json.dumps([told, [made.init, made.eq, made.order, made.unsafe_hash, made.frozen]])


def _is_made(cls: type, name: str, value: Any) -> bool:
    """Return whether a member of a class was made by the standard library, of what its author wrote."""
    value = value.__func__ if isinstance(value, _METHODS) else value
    if name == "__subclasshook__" and isinstance(value, FunctionType) and not _has_own_text(value):
        return True  # of a protocol
    if issubclass(cls, enum.Enum):
        if name in ("_new_member_", "_generate_next_value_"):  # a name that 3.10 does not have; what the values tell
            return True
        is_own = isinstance(value, property) or (isinstance(value, FunctionType) and _has_own_text(value))
        is_of_enum = name in vars(cls)["_member_map_"] or (name.startswith("_") and name.endswith("_"))
        return not is_own and (is_of_enum or getattr(value, "__module__", "") == "enum")
    if "__dataclass_fields__" not in vars(cls) and not (issubclass(cls, tuple) and "_fields" in vars(cls)):
        return False
    return name in _MADE and isinstance(value, FunctionType) and not _has_own_text(value)


def _has_own_text(function: FunctionType) -> bool:
    made_by = str(function.__globals__.get("__name__", ""))
    return made_by not in _MAKERS and function.__code__.co_filename != "<string>"

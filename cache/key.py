"""Canonical encoding of a provider's key, and the kernel id made from it. Standard library only.

The encoding is a text that people can read in a record. Two keys that Python finds equal encode equally
(`True == 1 == 1.0`), two that differ encode differently, and nothing of this process (address, path, hash seed, pickle
version) gets in. Stock FA4 hashes pickled keys instead, which gives equal tuples different digests.

The one exception to "two that differ": a `torch.device` is encoded by its type alone, as a kernel is the same on each
GPU of a kind, and which of them a rank has is of this process.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring_ascii
from types import MappingProxyType
from typing import Any, NewType

from ..errors import UnstableKey

KeyText = NewType("KeyText", str)
"""Canonical text of a key."""

KernelId = NewType("KernelId", str)
"""SHA-256 (hex) that names a kernel: toolchain, arch, slot, key, and its facts."""

BlobDigest = NewType("BlobDigest", str)
"""SHA-256 (hex) of a blob's bytes."""

Facts = Mapping[str, int | str]
"""What a kernel depends on besides its key, often nothing.

Device facts that it asked for while it was compiled, `{"sms": 148}`, and digests of what the functions of the user's do
that are compiled into it, `{"mask_mod": "9f86..."}`: a hash of one in the provider's key leaves out too much.
"""

NO_FACTS: Facts = MappingProxyType({})
"""Those of a kernel that depends on its key alone."""

# Changes when a blob of the same toolchain comes to differ: the linker's flags, what is exported.
SCHEMA = "fa4-precompile/kernel/2"


def encode_key(key: object, names: Sequence[str] = (), passing: str = "") -> KeyText:
    """Encode a key as canonical text.

    `names` are the names of the top-level positions, for the error message only. `passing` is a package whose name was
    made for this process: the classes in it are written without, `.module.Class`.

    Raises `UnstableKey` for a value that is no None, bool, int, float, str, bytes, enum member, class, tuple, frozen
    dataclass, `torch.dtype` (a constant known by its name) or `torch.device`.
    """
    if isinstance(key, tuple) and not _is_dataclass(key):
        parts = [_encode(item, names[i] if i < len(names) else str(i), passing) for i, item in enumerate(key)]
        return KeyText(f"({','.join(parts)})")
    return KeyText(_encode(key, names[0] if names else "0", passing))


def _encode(value: object, position: str, passing: str) -> str:
    if value is None:
        return "none"
    if value is False or value is True:  # as the numbers below; most of a key is this
        return "i1" if value else "i0"
    if isinstance(value, enum.Enum) and not isinstance(value, (int, float, str, bytes)):
        if value.name is None:  # a combination of flags, up to Python 3.10
            raise UnstableKey(position, f"nameless member of {_class_name(type(value))}")
        if "<locals>" in type(value).__qualname__:
            raise UnstableKey(position, f"member of an enum made in a function ({_class_name(type(value))})")
        return _text("enum", f"{_class_name(type(value), passing)}.{value.name}")
    if _is_dataclass(value):  # before the plain values that one may be, too: it is compared as a dataclass
        return _encode_dataclass(value, position, passing)
    if isinstance(value, int):  # bool and IntEnum too: Python finds them equal to their number
        return f"i{int(value)}"
    if isinstance(value, float):
        return _encode_float(value, position)
    if isinstance(value, str):
        return _text("s", str.__str__(value))
    if isinstance(value, bytes):
        return _text("b", value.hex())
    if isinstance(value, type):
        if "<locals>" in value.__qualname__:  # a function can make many classes of one name
            raise UnstableKey(position, f"class made in a function ({_class_name(value)})")
        return _text("class", _class_name(value, passing))
    if isinstance(value, tuple):
        return f"({','.join(_encode(item, position, passing) for item in value)})"
    if _class_name(type(value)) == "torch.dtype":
        return _text("class", str(value))
    if _class_name(type(value)) == "torch.device":
        return _text("device", str(getattr(value, "type", "")))
    raise UnstableKey(position, _class_name(type(value)))


def _is_dataclass(value: object) -> bool:
    return hasattr(type(value), "__dataclass_fields__")


def _encode_dataclass(value: Any, position: str, passing: str) -> str:
    """Encode a dataclass that Python compares by its class and its fields, and that does not change."""
    cls = type(value)
    made, equal = vars(cls).get("__dataclass_params__"), vars(cls).get("__eq__")
    if made is None or not made.frozen:
        raise UnstableKey(position, f"dataclass that is not frozen ({_class_name(cls)})")
    code = getattr(equal, "__code__", None)
    if not made.eq or code is None or code.co_filename != "<string>":  # which `dataclasses` makes it from
        raise UnstableKey(position, f"dataclass with an `__eq__` of its own ({_class_name(cls)})")
    if "<locals>" in cls.__qualname__:
        raise UnstableKey(position, f"dataclass made in a function ({_class_name(cls)})")
    compared = [field.name for field in dataclasses.fields(cls) if field.compare]
    items = (f"{name}={_encode(getattr(value, name), f'{position}.{name}', passing)}" for name in compared)
    return f"{_text('data', _class_name(cls, passing))}({','.join(items)})"


def _encode_float(value: float, position: str) -> str:
    if math.isnan(value):  # NaN differs from itself, so no lookup could ever find it
        raise UnstableKey(position, "float NaN")
    if math.isinf(value):
        return "finf" if value > 0 else "f-inf"
    return f"i{int(value)}" if value.is_integer() else f"f{value.hex()}"


def _text(tag: str, value: str) -> str:
    # The length in front keeps a string from imitating the text around it.
    return f"{tag}{len(value)}:{value}"


def _class_name(cls: type, passing: str = "") -> str:
    name = f"{cls.__module__}.{cls.__qualname__}"
    return name[len(passing) :] if passing and name.startswith(f"{passing}.") else name


def display(value: Any) -> object:
    """Return a value of a key as JSON for people: classes and enums by their short name, a dataclass by its fields."""
    if isinstance(value, enum.Enum):
        return value.name
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, type):
        return value.__name__
    if _is_dataclass(value):
        return {field.name: display(getattr(value, field.name)) for field in dataclasses.fields(value) if field.compare}
    if isinstance(value, (tuple, list)):
        return [display(item) for item in value]
    if hasattr(value, "data_ptr"):  # printing a tensor would wait for the GPU, and end a graph's capture
        return f"({_class_name(type(value))})"
    try:
        return str(value)
    except Exception:  # whatever a key may hold, it is only shown
        return f"({_class_name(type(value))})"


def kernel_id(toolchain: str, arch: str, slot: str, key: KeyText, facts: Facts) -> KernelId:
    """Return the id of a kernel."""
    asked = canonical_json(sorted(facts.items())).decode() if facts else "[]"
    # As `digest_json` of the list; most of what a lookup takes would be to make an encoder for it.
    parts = [*map(encode_basestring_ascii, (SCHEMA, toolchain, arch, slot, key)), asked]
    return KernelId(hashlib.sha256(f"[{','.join(parts)}]".encode("ascii")).hexdigest())


def symbol_of(kernel: KernelId) -> str:
    """Return what a kernel's function is called in its blob, without TVM-FFI's prefix."""
    return f"fa4_{kernel[:40]}"


def digest_json(content: object) -> str:
    """Return the SHA-256 (hex) of a JSON value in its one canonical writing."""
    return hashlib.sha256(canonical_json(content)).hexdigest()


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def canonical_json(content: object) -> bytes:
    """Return a JSON value as bytes: sorted keys, no spaces, ASCII."""
    return _CANONICAL.encode(content).encode("ascii")

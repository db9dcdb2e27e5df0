"""Strict reading of the cache's JSON files, and their self-digest.

Every file carries the SHA-256 of its own content, so that a flipped byte shows, also one that leaves valid JSON.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from ..errors import RecordError

T = TypeVar("T")

_HEXADECIMAL = re.compile("[0-9a-f]+").fullmatch

DIGEST = "self_sha256"

_SEAL = b',\n "self_sha256": "'
_END = b'"\n}\n'


@dataclass(frozen=True)
class Fields:
    """A JSON object that is read field by field; whatever is not as it must be raises `RecordError`."""

    source: str
    content: Mapping[str, object]

    def wrong(self, reason: str) -> RecordError:
        """Return the error to raise."""
        return RecordError(self.source, reason)

    def _get(self, name: str, kind: type[T]) -> T:
        if name not in self.content:
            raise self.wrong(f"has no field `{name}`")
        value = self.content[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.wrong(f"field `{name}` is {type(value).__name__}, not {kind.__name__}")
        return value

    def string(self, name: str) -> str:
        """Return a string."""
        return self._get(name, str)

    def digest(self, name: str, digits: int = 64) -> str:
        """Return a digest in lower-case hexadecimal digits; it can become part of a path."""
        value = self.string(name)
        if len(value) != digits or not _HEXADECIMAL(value):
            raise self.wrong(f"field `{name}` is no digest of {digits} digits")
        return value

    def integer(self, name: str) -> int:
        """Return an integer that is no bool."""
        return self._get(name, int)

    def number(self, name: str) -> float:
        """Return a number."""
        value = self.content.get(name)
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else self._get(name, float)

    def array(self, name: str) -> list[object]:
        """Return a list."""
        return self._get(name, list)

    def object(self, name: str) -> Fields:
        """Return an object."""
        return Fields(self.source, self._get(name, dict))

    def objects(self, name: str) -> list[Fields]:
        """Return a list of objects."""
        items = self.array(name)
        for item in items:
            if not isinstance(item, dict):
                raise self.wrong(f"field `{name}` holds a {type(item).__name__}, not an object")
        return [Fields(self.source, item) for item in items if isinstance(item, dict)]

    def strings(self, name: str) -> dict[str, str]:
        """Return an object whose values are strings."""
        inner = self.object(name)
        return {key: inner.string(key) for key in inner.content}

    def integers(self, name: str) -> dict[str, int]:
        """Return an object whose values are integers."""
        inner = self.object(name)
        return {key: inner.integer(key) for key in inner.content}


def render_file(content: Mapping[str, object]) -> bytes:
    """Return a JSON object as the bytes of a file, readable, with the digest of all that is before it as last field."""
    body = json.dumps(content, indent=1, allow_nan=False).removesuffix("\n}").encode("ascii")
    return body + _SEAL + hashlib.sha256(body).hexdigest().encode() + _END


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)


def parse_file(source: str, data: bytes, schema: str) -> Fields:
    """Read what `render_file` wrote. Raises `RecordError` if it is damaged or its `schema` is not the one given."""
    try:
        content = _DECODER.decode(data.decode("ascii"))
    except (ValueError, RecursionError):
        raise RecordError(source, "is damaged: no JSON") from None
    if not isinstance(content, dict):
        raise RecordError(source, "is damaged: no JSON object")
    fields = Fields(source, content)
    if content.get("schema") != schema:
        raise fields.wrong(f"has schema {content.get('schema')!r}; this version reads {schema!r}")
    stated = fields.string(DIGEST)
    body = data[: -len(_SEAL) - len(stated) - len(_END)]
    if stated != hashlib.sha256(body).hexdigest() or data != body + _SEAL + stated.encode("ascii", "replace") + _END:
        raise fields.wrong("is damaged: its content does not have the digest that it states")
    return Fields(source, {name: value for name, value in content.items() if name != DIGEST})

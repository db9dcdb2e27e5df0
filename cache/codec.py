"""Strict reading of the cache's JSON files, and their self-digest.

Every file carries the SHA-256 of its own content, so that a flipped byte shows, also one that leaves valid JSON. That
says nothing of who wrote it: what comes out of here is of a type, a size and a depth that readers can bear.
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
_NAME = re.compile(r"[\w-]+").fullmatch

MOST_LETTERS = 64
"""How long a name can be that becomes part of a file's name."""

_MOST_DIGITS = 100  # of an integer; Python takes time that grows with their square
_MOST_DEPTH = 50  # of what is nested in a field for people
_LARGEST = 1 << 63

DIGEST = "self_sha256"

_FIELD = b'\n "'
_SEAL = b',\n "self_sha256": "'
_END = b'"\n}\n'


@dataclass(slots=True)
class Fields:
    """A JSON object that is read field by field; whatever is not as it must be raises `RecordError`.

    There are half a dozen a record, so it is not frozen: that would take three times as long to make.
    `plain` says that its file has no escape in it, and too few brackets to be nested deeply: all of it can be printed.
    """

    source: str
    content: dict[str, object]
    plain: bool = False

    def wrong(self, reason: str) -> RecordError:
        """Return the error to raise."""
        return RecordError(self.source, reason)

    def _get(self, name: str, kind: type[T]) -> T:
        value = self.content.get(name)
        if type(value) is kind:  # what JSON brings is of no subclass, so that `true` is no int
            return value
        if name not in self.content:
            raise self.wrong(f"has no field `{name}`")
        raise self.wrong(f"field `{name}` is {type(value).__name__}, not {kind.__name__}")

    def _inner(self, content: dict[str, object]) -> Fields:
        return Fields(self.source, content, self.plain)

    def string(self, name: str) -> str:
        """Return a string, which can be printed as UTF-8."""
        value = self.content.get(name)
        if self.plain and type(value) is str:  # most of what is read is this
            return value
        value = self._get(name, str)
        if not _is_text(value):
            raise self.wrong(f"field `{name}` holds half a character")
        return value

    def name(self, name: str) -> str:
        """Return a name of letters, digits, `-` and `_`; it can become part of a path."""
        value = self.string(name)
        if not is_name(value):
            raise self.wrong(f"field `{name}` is no name of at most {MOST_LETTERS} letters, digits, `-` and `_`")
        return value

    def digest(self, name: str, digits: int = 64) -> str:
        """Return a digest in lower-case hexadecimal digits; it can become part of a path."""
        value = self._get(name, str)
        if not is_digest(value, digits):
            raise self.wrong(f"field `{name}` is no digest of {digits} digits")
        return value

    def digests(self, name: str) -> list[str]:
        """Return a list of digests."""
        values = self._get(name, list)
        if not all(isinstance(value, str) and is_digest(value) for value in values):
            raise self.wrong(f"field `{name}` holds something that is no digest of 64 digits")
        return values

    def places(self, name: str, number: int) -> list[int]:
        """Return a list of places in another list, which has so many."""
        values = self._get(name, list)
        if not all(type(value) is int and 0 <= value < number for value in values):
            raise self.wrong(f"field `{name}` holds something that is no place in a list of {number}")
        return values

    def integer(self, name: str) -> int:
        """Return an integer of 64 bits that is no bool."""
        value = self._get(name, int)
        if not -_LARGEST <= value < _LARGEST:
            raise self.wrong(f"field `{name}` is no integer of 64 bits")
        return value

    def size(self, name: str, most: int) -> int:
        """Return a number of bytes, at most so many."""
        value = self.integer(name)
        if not 0 <= value <= most:
            raise self.wrong(f"field `{name}` is no size of at most {most:,} bytes")
        return value

    def boolean(self, name: str) -> bool:
        """Return true or false."""
        return self._get(name, bool)

    def number(self, name: str) -> float:
        """Return a number, zero or more."""
        value = self.content.get(name)
        integral = isinstance(value, int) and not isinstance(value, bool)
        number = float(self.integer(name)) if integral else self._get(name, float)
        if number < 0:
            raise self.wrong(f"field `{name}` is negative")
        return number

    def free(self, name: str) -> dict[str, object]:
        """Return an object for people, whatever it holds: it can be printed."""
        value = self._get(name, dict)
        if not (self.plain or _is_printable(value)):
            raise self.wrong(f"field `{name}` holds half a character, or is nested deeper than {_MOST_DEPTH}")
        return value

    def object(self, name: str) -> Fields:
        """Return an object, whose fields are read in their turn."""
        return self._inner(self._get(name, dict))

    def objects(self, name: str) -> list[Fields]:
        """Return a list of objects."""
        items = self._get(name, list)
        for item in items:
            if not isinstance(item, dict):
                raise self.wrong(f"field `{name}` holds a {type(item).__name__}, not an object")
        return [self._inner(item) for item in items]

    def strings(self, name: str) -> dict[str, str]:
        """Return an object whose values are strings."""
        inner = self._inner(self.free(name))
        return {key: inner.string(key) for key in inner.content}

    def words(self, name: str) -> list[str]:
        """Return a list of strings, which can be printed as UTF-8."""
        values = self._get(name, list)
        if not all(isinstance(value, str) and _is_text(value) for value in values):
            raise self.wrong(f"field `{name}` holds something that is no string, or half a character")
        return values

    def facts(self, name: str) -> dict[str, int | str]:
        """Return an object whose values are integers and digests."""
        inner = self._inner(self.free(name))
        digests = {key for key, value in inner.content.items() if isinstance(value, str)}
        return {key: inner.digest(key) if key in digests else inner.integer(key) for key in inner.content}

    def booleans(self, name: str) -> dict[str, bool]:
        """Return an object whose values are true or false."""
        inner = self._inner(self.free(name))
        return {key: inner._get(key, bool) for key in inner.content}


def is_name(value: str) -> bool:
    """Return whether something can be called so: letters, digits, `-` and `_`."""
    return len(value) <= MOST_LETTERS and _NAME(value) is not None  # half a character is no letter


def _shown(value: object) -> str:
    return repr(value[:MOST_LETTERS]) if isinstance(value, str) else f"({type(value).__name__})"


def is_digest(value: str, digits: int = 64) -> bool:
    """Return whether something is so many lower-case hexadecimal digits."""
    return len(value) == digits and _HEXADECIMAL(value) is not None


def _is_text(value: str) -> bool:
    """Return whether a string can be written as UTF-8: JSON can spell half a character, a lone surrogate."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_printable(value: object, depth: int = _MOST_DEPTH) -> bool:
    if isinstance(value, str):
        return _is_text(value)
    if not isinstance(value, (dict, list)):
        return True
    inner = [*value, *value.values()] if isinstance(value, dict) else value
    return depth > 0 and all(_is_printable(item, depth - 1) for item in inner)


def render_file(content: Mapping[str, object]) -> bytes:
    """Return a JSON object as the bytes of a file, readable, with the digest of all that is before it as last field."""
    body = json.dumps(content, indent=1, allow_nan=False).removesuffix("\n}").encode("ascii")
    return body + _SEAL + hashlib.sha256(body).hexdigest().encode() + _END


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


def _integer(text: str) -> int:
    return int(text) if len(text) <= _MOST_DIGITS else _refuse(text)


_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)
_WARY_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite, parse_int=_integer)
"""For a file with so many digits in a row; to ask at each number takes a fifth of the time."""

_SHAPE = bytes.maketrans(b"0123456789{", b"0000000000[")
"""Makes every digit a zero, and every bracket the same."""

_MANY_DIGITS = b"0" * (_MOST_DIGITS + 1)


def parse_file(source: str, data: bytes, schema: str) -> Fields:
    """Read what `render_file` wrote. Raises `RecordError` if it is damaged or its `schema` is not the one given."""
    fields = _decoded(source, data)
    _require_sealed(fields, data, schema)
    return fields


def parse_fields(source: str, data: bytes, schema: str, names: frozenset[bytes], others: frozenset[bytes]) -> Fields:
    """Read some fields of what `render_file` wrote: `names`, and of `others` those that are there.

    Raises `RecordError` as `parse_file` does, but for what is in other fields: they are not decoded. Most of a record
    is for people, and to decode it would take a job longer than all that is done with the rest.
    """
    parts = data.split(_FIELD)  # which no string can hold, and nothing that is nested has in front
    chosen = {name: part for part in parts if (name := part.partition(b'"')[0]) in names or name in others}
    if not names <= chosen.keys():  # another writer's
        return parse_file(source, data, schema)
    fields = _decoded(source, _FIELD.join((parts[0], *chosen.values())))
    _require_sealed(fields, data, schema)
    return fields


def parse_object(source: str, data: bytes) -> Fields:
    """Read a JSON object that has neither schema nor digest: a line of a file. Raises `RecordError` if it is none."""
    return _decoded(source, data)


def _decoded(source: str, data: bytes) -> Fields:
    shape = data.translate(_SHAPE)
    decoder = _WARY_DECODER if _MANY_DIGITS in shape else _DECODER
    try:
        content = decoder.decode(data.decode("ascii"))
    except (ValueError, RecursionError):
        raise RecordError(source, "is damaged: no JSON") from None
    if not isinstance(content, dict):
        raise RecordError(source, "is damaged: no JSON object")
    return Fields(source, content, b"\\" not in shape and shape.count(b"[") <= _MOST_DEPTH)


def _require_sealed(fields: Fields, data: bytes, schema: str) -> None:
    """Raise `RecordError` unless a file is of a schema, and its bytes have the digest that it states."""
    content = fields.content
    if content.get("schema") != schema:
        raise fields.wrong(f"has schema {_shown(content.get('schema'))}; this version reads {schema!r}")
    stated = fields.string(DIGEST)
    end = _SEAL + stated.encode("ascii", "replace") + _END
    if not data.endswith(end) or stated != hashlib.sha256(memoryview(data)[: -len(end)]).hexdigest():
        raise fields.wrong("is damaged: its content does not have the digest that it states")
    del content[DIGEST]

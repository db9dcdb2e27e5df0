"""YAML with positions: every value knows its line and column, and every complaint names them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from ..errors import SpecError

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*|0x[0-9a-fA-F]+)")
_SCALARS = ("null", "bool", "int", "float", "str")

MAX_BYTES = 256 * 1024
"""Most bytes of a file: PyYAML reads some 50 kB a second where there is a value at every other byte."""

MAX_VALUES = 100_000
"""Most values of a file, counted each time that an alias names them; people write some hundred."""

_MAX_DEPTH = 50
_SHOWN = 80
_LIKE = "the shipped specs show what one looks like, for example `quickstart`"


@dataclass(frozen=True)
class Value:
    """A YAML value of a file, scalar, list or mapping."""

    source: str
    node: yaml.Node

    def error(self, message: str, hint: str = "") -> SpecError:
        """Return an error at this value's place."""
        mark = self.node.start_mark
        return SpecError(self.source, mark.line + 1, mark.column + 1, message, hint)

    def mapping(self, allowed: Iterable[str] | None, what: str) -> dict[str, Value]:
        """Return a mapping's values by key.

        `what` is what the mapping is called in a complaint. Raises `SpecError` if this is no mapping, has a key twice,
        or one that is not `allowed` (None allows all).
        """
        if not isinstance(self.node, yaml.MappingNode):
            raise self.error(f"{what} must be a mapping, found {self.kind}")
        names = list(allowed) if allowed is not None else None
        found: dict[str, Value] = {}
        for key_node, value_node in self.node.value:
            key = Value(self.source, key_node)
            name = key.scalar()
            if not isinstance(name, str):
                raise key.error(f"a key of {what} must be a name, found {key.kind}")
            if names is not None and name not in names:
                raise key.error(f"unknown key `{name}` in {what}", hint_for(name, names))
            if name in found:
                raise key.error(f"duplicate key `{name}` in {what}; it stands at line {found[name].line} already")
            found[name] = Value(self.source, value_node)
        return found

    def items(self, what: str) -> list[Value]:
        """Return a list's values. Raises `SpecError` if this is no list or an empty one."""
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.error(f"{what} must be a list, found {self.kind}")
        if not self.node.value:
            raise self.error(f"{what} is an empty list, which enumerates nothing")
        return [Value(self.source, node) for node in self.node.value]

    def scalar(self) -> object:
        """Return None, a bool, int, float or str; other values, and scalars with other tags, are an error."""
        tag = self.node.tag.rsplit(":", 1)[-1]
        if not isinstance(self.node, yaml.ScalarNode):
            raise self.error(f"expected one value, found {self.kind}")
        if tag not in _SCALARS:
            raise self.error(f"a value of YAML type `{tag}` has no meaning here; quote it if it is a name")
        if tag == "int" and not _INTEGER.fullmatch(self.node.value):
            raise self.error(f"{self.kind} is no number in plain digits", "write it in decimal digits")
        try:
            found: object = yaml.constructor.SafeConstructor().construct_object(self.node)
        except Exception:  # PyYAML raises what it stumbles over
            raise self.error(f"{self.kind} is no YAML value of type `{tag}`") from None
        if isinstance(found, int) and abs(found) >= 2**63:
            raise self.error("this number has more than 64 bits, which has no meaning here")
        if isinstance(found, str) and any(unicodedata.category(one) in ("Cc", "Cs") for one in found):
            raise self.error("this text has a line break, another control character or half a surrogate pair in it")
        return found

    @property
    def is_list(self) -> bool:
        """Return whether this is a list."""
        return isinstance(self.node, yaml.SequenceNode)

    @property
    def is_mapping(self) -> bool:
        """Return whether this is a mapping."""
        return isinstance(self.node, yaml.MappingNode)

    @property
    def line(self) -> int:
        """Return the line, from 1."""
        return int(self.node.start_mark.line) + 1

    @property
    def text(self) -> str:
        """Return this as it would be written on one line, for a message. Nothing that holds itself has such a text."""
        if self.is_mapping:
            return "{" + ", ".join(f"{key.text}: {value.text}" for key, value in self._pairs()) + "}"
        if self.is_list:
            return f"[{', '.join(Value(self.source, node).text for node in self.node.value)}]"
        return str(self.node.value)

    def _pairs(self) -> Iterator[tuple[Value, Value]]:
        for key, value in self.node.value:
            yield Value(self.source, key), Value(self.source, value)

    @property
    def kind(self) -> str:
        """Return what this is, for a message."""
        if self.is_mapping:
            return "a mapping"
        if self.is_list:
            return "a list"
        if not self.node.value:
            return "nothing"
        quoted = isinstance(self.node, yaml.ScalarNode) and self.node.style in ("'", '"')
        shown = self.node.value if len(self.node.value) <= _SHOWN else f"{self.node.value[:_SHOWN]}..."
        return f"the text `{shown}`" if quoted else f"`{shown}`"


def decode(source: str, data: bytes) -> str:
    """Return the text of a file. Raises `SpecError` with the place of what is no UTF-8, or if there is too much."""
    if len(data) > MAX_BYTES:
        message = f"the file has more than {MAX_BYTES:,} bytes, which is the limit"
        raise SpecError(source, 0, 0, message, "lists multiply: `head_dim: [64, 128]` is one line for both")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        place = _place_after(data[: error.start].decode("utf-8"))
        raise SpecError(source, *place, f"the byte 0x{data[error.start]:02x} here is no UTF-8") from None


def read_yaml(source: str, text: str, like: str = _LIKE) -> Value:
    """Parse one YAML document. Raises `SpecError` with the place of the fault; `like` is the hint for an empty file."""
    try:
        node = _compose(source, text)
    except yaml.reader.ReaderError as error:
        raise SpecError(source, *_place_after(text[: error.position]), f"this is not YAML: {error.reason}") from None
    if node is None:
        raise SpecError(source, 1, 1, "the file is empty", like)
    _require_few(source, node, {})
    return Value(source, node)


def _compose(source: str, text: str) -> yaml.Node | None:
    loader = _Loader(text)
    try:
        return loader.get_single_node()
    except _TooDeep as error:
        raise _at(source, error.mark, f"this YAML is nested too deep, by more than {_MAX_DEPTH}") from None
    except yaml.MarkedYAMLError as error:
        raise _at(source, error.problem_mark or error.context_mark, f"this is not YAML: {error.problem}") from None
    except Exception as error:  # PyYAML raises what it stumbles over, a character of number 0x110000 for example
        raise _at(source, loader.get_mark(), f"this is not YAML: {error}") from None


class _TooDeep(Exception):
    def __init__(self, mark: Any) -> None:
        self.mark = mark


class _Loader(yaml.SafeLoader):
    """Refuses what would end in a `RecursionError`, wherever that would be."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self._depth > _MAX_DEPTH:
            event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
            raise _TooDeep(event.start_mark)
        self._depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _at(source: str, mark: Any, message: str) -> SpecError:
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    return SpecError(source, line, column, message)


def _place_after(before: str) -> tuple[int, int]:
    """Return line and column of what stands after a text."""
    lines = re.split("\r\n|[\r\n\x85\u2028\u2029]", before)  # as YAML breaks them
    return len(lines), len(lines[-1]) + 1


def _require_few(source: str, node: yaml.Node, sizes: dict[int, int]) -> int:
    """Return how many values a node comes to, with those of aliases. Raises `SpecError` where they are too many."""
    if id(node) in sizes:
        return sizes[id(node)]
    sizes[id(node)] = 0  # for one that holds itself, which is complained about where it has no meaning
    items: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        items = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        items = node.value
    size = 1 + sum(_require_few(source, item, sizes) for item in items)
    if size > MAX_VALUES:
        raise Value(source, node).error(
            f"these are {size:,} values, with those of aliases; the limit is {MAX_VALUES:,}"
        )
    sizes[id(node)] = size
    return size


def hint_for(name: str, allowed: Iterable[str]) -> str:
    """Return the nearest spelling and what is allowed."""
    names = sorted(allowed)
    return did_you_mean(name, names) + f"allowed: {', '.join(names)}"


def did_you_mean(name: str, names: Sequence[str]) -> str:
    """Return the question after the nearest spelling, with a space behind it, or nothing."""
    import difflib  # for who has mistyped

    return "".join(f"did you mean `{close}`? " for close in difflib.get_close_matches(name, names, n=1))

"""YAML with positions: every value knows its line and column, and every complaint names them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import yaml

from ..errors import SpecError

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*|0x[0-9a-fA-F]+)")
_SCALARS = ("null", "bool", "int", "float", "str")


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
            return yaml.constructor.SafeConstructor().construct_object(self.node)
        except Exception:  # PyYAML raises what it stumbles over
            raise self.error(f"{self.kind} is no YAML value of type `{tag}`") from None

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
        return f"the text `{self.node.value}`" if quoted else f"`{self.node.value}`"


def read_yaml(source: str, text: str) -> Value:
    """Parse one YAML document. Raises `SpecError` with the place of the fault."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        raise SpecError(source, line, column, f"this is not YAML: {error.problem}") from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise SpecError(source, *place, f"this is not YAML: {error.reason}") from None
    except yaml.YAMLError as error:
        raise SpecError(source, 0, 0, f"this is not YAML: {error}") from None
    except RecursionError:
        raise SpecError(source, 1, 1, "this YAML is nested too deep") from None
    if node is None:
        raise SpecError(
            source, 1, 1, "the file is empty", "the shipped specs show what one looks like, for example `quickstart`"
        )
    return Value(source, node)


def hint_for(name: str, allowed: Iterable[str]) -> str:
    """Return the nearest spelling and what is allowed."""
    names = sorted(allowed)
    return " ".join([*_nearest(name, names), f"allowed: {', '.join(names)}"])


def _nearest(name: str, names: list[str]) -> Iterator[str]:
    for close in difflib.get_close_matches(name, names, n=1):
        yield f"did you mean `{close}`?"

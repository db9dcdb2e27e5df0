"""A list of known-bad toolchains as YAML: the shipped one, and those of users, with the place of what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ...cache.target import sm_number
from ...errors import SpecError
from ...text.yaml_source import MAX_BYTES, Value, decode, hint_for, read_yaml
from .entry import Entry
from .versions import Range

_Read = TypeVar("_Read")

_VERSION = 1
_TOP = ("version", "without", "entries")
_FIELDS = ("id", "what", "source", "dsl", "fa4", "archs", "slots", "key")
_NEEDED = ("id", "what", "source")
_ALL = "all"

_ID = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
_LINK = re.compile(r"https?://\S+")
_SLOT = re.compile(r"\w{1,64}", re.ASCII)


@dataclass(frozen=True)
class Written:
    """A list as it is written: entries by id with their places, and the shipped ones that it switches off."""

    entries: Mapping[str, tuple[Value, Entry]]
    without: Sequence[Value] = ()

    def over(self, shipped: Sequence[Entry]) -> list[Entry]:
        """Return the shipped entries that are left, and these. Raises `SpecError` for an id that can't be meant."""
        ids = [entry.id for entry in shipped]
        off = {_one_of(value, [_ALL, *ids]) for value in self.without}
        left = [] if _ALL in off else [entry for entry in shipped if entry.id not in off]
        for entry in left:
            if entry.id in self.entries:
                place, _ = self.entries[entry.id]
                raise place.error(
                    f"`{entry.id}` is a shipped entry", f"take another id, or say `without: [{entry.id}]`"
                )
        return [*left, *(entry for _, entry in self.entries.values())]


def read_file(path: Path) -> Written:
    """Read a file. Raises `SpecError` with line and column."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SpecError(str(path), 0, 0, f"can't be read: {error.strerror}") from None
    return read(str(path), decode(str(path), data))


def read(source: str, text: str) -> Written:
    """Read a list from its text. Raises `SpecError` with line and column."""
    root = read_yaml(source, text, "docs/reference/known-bad.md shows what a list looks like")
    top = root.mapping(_TOP, "a list of known-bad toolchains")
    if "version" not in top:
        raise root.error("the list has no `version`", f"this release reads version {_VERSION}")
    version = top["version"]
    if type(version.scalar()) is not int or version.scalar() != _VERSION:
        raise version.error(f"version {version.kind} is unknown", f"this release reads version {_VERSION}")
    entries: dict[str, tuple[Value, Entry]] = {}
    for item in top["entries"].items("`entries`") if "entries" in top else ():
        place, entry = _entry(item)
        if entry.id in entries:
            before = entries[entry.id][0].line
            raise place.error(f"duplicate id `{entry.id}`; it stands at line {before} already")
        entries[entry.id] = place, entry
    return Written(entries, list(_some(top["without"], "`without`")) if "without" in top else ())


def _entry(item: Value) -> tuple[Value, Entry]:
    """Return an entry, and the place of its id."""
    fields = item.mapping(_FIELDS, "an entry of `entries`")
    for name in _NEEDED:
        if name not in fields:
            raise item.error(f"the entry has no `{name}`", f"each has {', '.join(_NEEDED)}")
    if not {"dsl", "fa4"} & fields.keys():
        raise item.error("the entry names no versions", "say which by `dsl`, by `fa4`, or by both")
    key = fields["key"].mapping(None, "`key`") if "key" in fields else {}
    return fields["id"], Entry(
        id=_text(fields["id"], "id", _ID, "small letters, digits, `.` and `-`, 64 at most"),
        what=_text(fields["what"], "what", None, "a sentence"),
        source=_text(fields["source"], "source", _LINK, "a link, such as https://example.org/issues/1"),
        dsl=_range(fields["dsl"], "dsl") if "dsl" in fields else None,
        fa4=_range(fields["fa4"], "fa4") if "fa4" in fields else None,
        archs=_each(fields, "archs", _arch),
        slots=_each(fields, "slots", lambda value: _text(value, "slots", _SLOT, "names of slots, such as bwd")),
        key={name: [one.scalar() for one in _some(value, f"`{name}`")] for name, value in key.items()},
    )


def _some(value: Value, what: str) -> Iterator[Value]:
    """Yield the values of a list, or the one that stands there without one."""
    yield from value.items(what) if value.is_list else [value]


def _each(fields: Mapping[str, Value], name: str, read: Callable[[Value], _Read]) -> list[_Read]:
    return [read(value) for value in _some(fields[name], f"`{name}`")] if name in fields else []


def _text(value: Value, name: str, pattern: re.Pattern[str] | None, allowed: str) -> str:
    found = value.scalar()
    if not isinstance(found, str) or not (pattern.fullmatch(found) if pattern else found.strip()):
        raise value.error(f"`{name}` can't be {value.kind}", f"allowed: {allowed}")
    return found


def _range(value: Value, name: str) -> Range:
    text = _text(value, name, None, "a range of versions in quotes, such as '>=4.6.0,<4.6.2'")
    try:
        return Range.parse(text)
    except ValueError as error:
        raise value.error(f"`{name}`: {error}", "parts are separated by `,`; allowed: ==, !=, <, <=, >, >=") from None


def _arch(value: Value) -> str:
    text = _text(value, "archs", None, "archs, such as sm_103a")
    try:
        sm_number(text)
    except ValueError as error:
        raise value.error(
            str(error), "write the arch, not the target; `fa4-precompile targets` says which has which"
        ) from None
    return text


def _one_of(value: Value, allowed: Sequence[str]) -> str:
    found = value.scalar()
    if found not in allowed:
        raise value.error(f"there is no shipped entry {value.kind}", hint_for(str(found), allowed))
    return str(found)

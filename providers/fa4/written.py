"""Where a module's source keeps what it compiles, read by pattern: quick enough for a job. Standard library only.

What is looked for is `X[key] = cute.compile(...)`, whatever `X` is, and what comes to it: `X[key] = name` of a name
that was compiled above, `X[key] = function(...)` of a function that returns what it compiled. `declared.py` reads the
same by a parser, and says where the two differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

_COMPILE = r"[\w.]*\bcute\.compile\s*[(\[]"
_COMPILES = re.compile(r"cute\.compile\s*[(\[]")  # begins with letters: what is optional is tried at each place
_FUNCTION = re.compile(r"^[ \t]*(?:async[ \t]+)?def[ \t]+(\w+)", re.MULTILINE)
_BLOCK = re.compile(r"^(?:async[ \t]+def|def|class)\b", re.MULTILINE)
_NAMED = re.compile(r"[ \t]+(\w+)[ \t]*(?::[^=\n]+)?=[ \t]*\(?[\w.]*")
_RETURN = re.compile(rf"^[ \t]+return\b[ \t]*\(?\s*(?:({_COMPILE})|(\w+)(\s*\()?)", re.MULTILINE)
_PUT = re.compile(r"\]\s*(?::[^=\n]+)?=\s*(?:[\w.]+\s*=\s*)*\(*\s*([\w.]+)\s*([(\[]?)")
_PLACE = r"[A-Za-z_][\w.]*(?:\(\))?"
_TARGET = re.compile(rf"({_PLACE})\s*$")
_MOST_OF_A_KEY = 4000
_MADE = re.compile(r"^([\w.]+)[ \t]*(?::[^=\n]+)?=\s*[\w.]+\(\s*(?:name\s*=\s*)?[\"']([\w.-]+)[\"']", re.MULTILINE)
_RETURNED = re.compile(r"^[ \t]+return\s+[\w.]+\(\s*(?:name\s*=\s*)?[\"']([\w.-]+)[\"']", re.MULTILINE)


@dataclass(frozen=True)
class Written:
    """A place of a source where something compiled is kept.

    Attributes:
        line: its line.
        target: what is assigned to, without the key: `_attention_fwd.kernels`, or `cache`.
        place: what the module has by that name: `_attention_fwd.kernels`, `_cache`, `_get_cache()`. None if that can't
            be told.
    """

    line: int
    target: str
    place: str | None


def source_of(module: ModuleType) -> str:
    """Return a module's source, or nothing if it was installed without."""
    path = getattr(module, "__file__", None) or ""
    if not path.endswith(".py"):
        return ""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, ValueError):
        return ""


def source_files(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and the source of each module right in a package's folder; not of the package itself."""
    for path in sorted(folder.glob("*.py")):
        if path.stem == "__init__":
            continue
        try:
            yield path.stem, path.read_text(encoding="utf-8")
        except (OSError, ValueError):  # whoever imports it says so
            continue


def written(source: str) -> list[Written]:
    """Return where a source keeps what it compiles."""
    if "cute.compile" not in source or not _COMPILES.search(source):
        return []
    return list(_Source(source).written())


def maker_names(source: str) -> dict[str, str]:
    """Return the names that a source gives to the caches that it makes, by place: `maker("name")`."""
    return dict(_MADE.findall(source))


def returned_name(source: str, function: str) -> str | None:
    """Return the name that a function of a source gives to the cache that it returns."""
    ranges = [(start, end) for start, end, name in _functions(source) if name == function]
    found = _RETURNED.search(source, *ranges[-1]) if ranges else None
    return found[1] if found else None


class _Source:
    def __init__(self, source: str) -> None:
        self._source = source
        self._functions = list(_functions(source))
        self._blocks = [0, *(block.start() for block in _BLOCK.finditer(source)), len(source)]
        self._compiled = set(self._compiled_names())
        self._compiling = self._compiling_functions()

    def written(self) -> Iterator[Written]:
        line, counted = 1, 0
        for put in _PUT.finditer(self._source):
            name, opening = put[1], put[2]
            if not self._is_compiled(put.start(), name, opening):
                continue
            target = self._target(put.start())
            if target is not None:
                line += self._source.count("\n", counted, put.start())
                counted = put.start()
                yield Written(line, target, self._place(put.start(), target))

    def _is_compiled(self, position: int, name: str, opening: str) -> bool:
        if name.split(".")[-2:] == ["cute", "compile"]:
            return bool(opening)
        if opening:
            return opening == "(" and name in self._compiling
        return (self._block(position), name) in self._compiled

    def _compiled_names(self) -> Iterator[tuple[int, str]]:
        for compiled in _COMPILES.finditer(self._source):
            line = self._source.rfind("\n", 0, compiled.start()) + 1
            named = _NAMED.fullmatch(self._source, line, compiled.start())
            if named:
                yield self._block(line), named[1]

    def _compiling_functions(self) -> set[str]:
        returns = [
            (function, start, returned)
            for start, end, function in self._functions
            for returned in _RETURN.finditer(self._source, start, end)
        ]
        found: set[str] = set()
        while True:
            more = {name for name, start, returned in returns if self._is_returned_compiled(start, returned, found)}
            if more == found:
                return found
            found = more

    def _is_returned_compiled(self, start: int, returned: re.Match[str], compiling: set[str]) -> bool:
        if returned[1]:
            return True
        return returned[2] in compiling if returned[3] else (self._block(start), returned[2]) in self._compiled

    def _target(self, closing: int) -> str | None:
        """Return what stands before the bracket that the one at `closing` closes."""
        depth = 0
        for position in range(closing, max(closing - _MOST_OF_A_KEY, -1), -1):
            depth += {"]": 1, "[": -1}.get(self._source[position], 0)
            if depth == 0:
                line = self._source.rfind("\n", 0, position) + 1
                found = _TARGET.search(self._source, line, position)
                return found[1] if found else None
        return None

    def _place(self, position: int, target: str) -> str:
        """Return the place itself, or what the nearest line above assigns to it if it is a local name."""
        if not target.isidentifier():
            return target
        local = re.compile(rf"^[ \t]+{target}[ \t]*(?::[^=\n]+)?=[ \t]*({_PLACE})[ \t]*(?:#.*)?$", re.MULTILINE)
        found = local.findall(self._source, self._block(position), position)
        return found[-1] if found else target

    def _block(self, position: int) -> int:
        """Return where the outermost definition around a position begins."""
        return max(start for start in self._blocks if start <= position)


def _functions(source: str) -> Iterator[tuple[int, int, str]]:
    """Yield where the text of each function begins and ends, up to the next one, and its name."""
    found = list(_FUNCTION.finditer(source))
    for function, following in zip(found, [*found[1:], None], strict=False):
        yield function.start(), following.start() if following else len(source), function[1]

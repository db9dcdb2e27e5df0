"""The source text of a function, and the names that it reads from outside. Executes nothing."""

from __future__ import annotations

import ast
import inspect
import itertools
import linecache
import re
import symtable
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

# Where the DSL keeps the code of a function that it has rewritten.
_ORIGINAL = "_original_code"

_FROM = re.compile(r"^[ \t]*from[ \t]+([\w.]+)[ \t]+import[ \t]*(\([^)]*\)|[^\n#]*)", re.MULTILINE)
_COMMENT = re.compile(r"#[^\n]*")

Chain = tuple[str, ...]
"""Attributes that are read one of another: `a.b.c` of `a` is `("b", "c")`; nothing if `a` itself is used."""


class NoSource(Exception):
    """There is no text of a function, or none that is surely its own."""


@dataclass(frozen=True)
class Reads:
    """What the text of a function names that it does not define.

    Attributes:
        chains: the attributes that are read of each name.
        imports: modules that it imports when it is called, and the names that it takes from each; `*` for the module.
            A relative one has its dots.
    """

    chains: Mapping[str, Sequence[Chain]]
    imports: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Source:
    """A function as it is written."""

    text: str
    reads: Reads


class Sources:
    """The texts of a process's functions, each read and parsed once."""

    def __init__(self) -> None:
        self._sources: dict[tuple[str, int, str], Source] = {}
        self._lambdas: dict[str, Sequence[ast.Lambda]] = {}
        self._imported: dict[str, Mapping[str, Sequence[str]]] = {}

    def of(self, function: FunctionType) -> Source:
        """Return how a function is written. Raises `NoSource`."""
        code = _code(function)
        lines = self._lines(function)
        if code.co_name == "<lambda>":
            return self._lambda(code, lines)
        place = code.co_filename, code.co_firstlineno, code.co_name
        known = self._sources.get(place)
        if known is None:
            text = _block(lines, code)
            known = self._sources[place] = Source(text, _reads(text, code.co_name))
        return known

    def imported_as(self, function: FunctionType, name: str) -> str | None:
        """Return from where a function's module imports a name: `cutlass.const_expr`.

        None if its text does not say so, or says it twice.
        """
        file = _code(function).co_filename
        if file not in self._imported:
            self._imported[file] = _imports("".join(self._lines(function)))
        found = self._imported[file].get(name, ())
        return found[0] if len(found) == 1 else None

    def _lines(self, function: FunctionType) -> Sequence[str]:
        lines = linecache.getlines(_code(function).co_filename, function.__globals__)
        if not lines:
            raise NoSource("has no source text")
        return lines

    def _lambda(self, code: CodeType, lines: Sequence[str]) -> Source:
        if code.co_filename not in self._lambdas:
            tree = _parsed("".join(lines))
            self._lambdas[code.co_filename] = [one for one in ast.walk(tree) if isinstance(one, ast.Lambda)]
        here = [one for one in self._lambdas[code.co_filename] if one.lineno == code.co_firstlineno]
        texts = {f"({_segment(lines, one)})" for one in here if _can_be(one, code)}
        if len(texts) != 1:
            raise NoSource("is one of several lambdas in a line" if texts else "is a lambda whose text has changed")
        text = texts.pop()
        return Source(text, _reads(text, "lambda"))


def _code(function: FunctionType) -> CodeType:
    code: CodeType = vars(function).get(_ORIGINAL, function.__code__)
    return code


def _block(lines: Sequence[str], code: CodeType) -> str:
    block = inspect.getblock(list(lines[code.co_firstlineno - 1 :]))
    text = textwrap.dedent("".join(block)).rstrip() + "\n"
    if f"def {code.co_name}" not in text:
        raise NoSource("has another text than when it was imported")
    return text


def _parsed(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except SyntaxError:
        raise NoSource("has no text that can be parsed") from None


# Lambdas


def _segment(lines: Sequence[str], node: ast.Lambda) -> str:
    end_line, end = node.end_lineno or node.lineno, node.end_col_offset or 0
    part = [line.encode() for line in lines[node.lineno - 1 : end_line]]
    part[-1] = part[-1][:end]
    part[0] = part[0][node.col_offset :]
    return b"".join(part).decode()


def _can_be(node: ast.Lambda, code: CodeType) -> bool:
    """Return whether code can be that of a lambda: by its columns, which Python knows from 3.11 on, and its names."""
    arguments = node.args
    names = [one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    if tuple(names) != code.co_varnames[: len(names)] or code.co_argcount + code.co_kwonlyargcount != len(names):
        return False
    positions = getattr(code, "co_positions", None)
    if positions is None:
        used = {one.id for one in ast.walk(node.body) if isinstance(one, ast.Name)}
        values = {repr(one.value) for one in ast.walk(node.body) if isinstance(one, ast.Constant)}
        return used >= {*code.co_freevars} and {repr(one) for one in code.co_consts if one is not None} <= values
    spans = [one for one in positions() if None not in one and (one[0], one[2]) != (one[1], one[3])]
    body = (node.body.lineno, node.body.col_offset), (node.body.end_lineno, node.body.end_col_offset)
    return all(body[0] <= (first, start) and (last, end) <= body[1] for first, last, start, end in spans)


# Names


def _imports(text: str) -> Mapping[str, Sequence[str]]:
    found: dict[str, list[str]] = {}
    for module, names in _FROM.findall(text):
        for item in _COMMENT.sub("", names).strip("() \t\n").split(","):
            words = item.split()
            if words:
                paths = found.setdefault(words[-1], [])
                paths += [path for path in (f"{module}.{words[0]}",) if path not in paths]
    return found


def _reads(text: str, name: str) -> Reads:
    tree = _parsed(text)
    outside = _outside(_own_table(symtable.symtable(text, "<text>", "exec"), name))
    chains: dict[str, set[Chain]] = {}
    inner: set[int] = set()
    nodes = list(ast.walk(tree))
    for node in nodes:  # an attribute comes before what it is an attribute of
        if isinstance(node, ast.Attribute) and id(node) not in inner:
            attributes, base = [node.attr], node.value
            while isinstance(base, ast.Attribute):
                inner.add(id(base))
                attributes, base = [base.attr, *attributes], base.value
            if isinstance(base, ast.Name):
                inner.add(id(base))
                chains.setdefault(base.id, set()).add(tuple(attributes))
        elif isinstance(node, ast.Name) and id(node) not in inner:
            chains.setdefault(node.id, set()).add(())
    own = {name: sorted(chains.get(name, {()})) for name in sorted(outside)}
    return Reads(own, sorted(set(itertools.chain.from_iterable(map(_imported, nodes)))))


def _own_table(module: symtable.SymbolTable, name: str) -> symtable.SymbolTable:
    for table in module.get_children():
        if table.get_name() == name and table.get_type() == "function":
            return table
    raise NoSource("has no text that can be parsed")


def _outside(table: symtable.SymbolTable) -> set[str]:
    """Return the names that are looked up outside of a function and those in it."""
    found = {one.get_name() for one in table.get_symbols() if one.is_global() and one.is_referenced()}
    for inner in table.get_children():
        found |= _outside(inner)
    return found


def _imported(node: Any) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Import):
        yield from ((one.name, "*") for one in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (("." * node.level + (node.module or ""), one.name) for one in node.names)

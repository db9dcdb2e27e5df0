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


class Source:
    """A function as it is written.

    Attributes:
        text: its lines, from the left edge on.
        names: what it reads and does not define, in order.
    """

    def __init__(self, text: str, name: str) -> None:
        self.text = text
        try:
            module = symtable.symtable(text, "<text>", "exec")
        except SyntaxError:
            raise NoSource("has no text that can be parsed") from None
        self.names = sorted(_outside(_own_table(module, name)))
        self._nodes: Sequence[ast.AST] | None = None  # most functions read no attribute that has to be looked at

    def chains_of(self, name: str) -> Sequence[Chain]:
        """Return the attributes that are read of a name."""
        return sorted(_chains(self._parsed(), name)) or [()]

    @property
    def imports(self) -> Sequence[tuple[str, str]]:
        """The modules that it imports when it is called, and the names that it takes from each; `*` for the module.

        A relative one has its dots.
        """
        nodes = self._parsed() if "import" in self.text else ()
        return sorted(set(itertools.chain.from_iterable(map(_imported, nodes))))

    def _parsed(self) -> Sequence[ast.AST]:
        if self._nodes is None:
            self._nodes = list(ast.walk(_parsed(self.text)))
        return self._nodes


class Sources:
    """The texts of a process's functions, each read and parsed once."""

    def __init__(self) -> None:
        self._sources: dict[tuple[str, CodeType], Source] = {}
        self._lambdas: dict[str, Sequence[ast.Lambda]] = {}
        self._imported: dict[str, Mapping[str, Sequence[str]]] = {}

    def of(self, function: FunctionType) -> Source:
        """Return how a function is written. Raises `NoSource`."""
        code = _code(function)
        known = self._sources.get((code.co_filename, code))
        if known is None:
            linecache.checkcache(code.co_filename)
            lines = self._lines(function)
            known = self._lambda(code, lines) if code.co_name == "<lambda>" else _written(lines, code)
            self._sources[code.co_filename, code] = known
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
        return Source(text, "lambda")


def _code(function: FunctionType) -> CodeType:
    code: CodeType = vars(function).get(_ORIGINAL, function.__code__)
    return code


def _written(lines: Sequence[str], code: CodeType) -> Source:
    """Return how a function is written, but for the lines of comments and of nothing that end it."""
    rest = lines[code.co_firstlineno - 1 :]
    try:
        found = Source(_joined(rest[: _end(rest)]), code.co_name)
    except NoSource:  # its end was taken for one in a string or a bracket; to find it surely takes longer
        found = Source(_joined(inspect.getblock(list(rest))), code.co_name)
    if f"def {code.co_name}" not in found.text:
        raise NoSource("has another text than when it was imported")
    return found


def _end(lines: Sequence[str]) -> int:
    """Return how many lines a function has by its indentation, which a string or a bracket may deceive."""
    edge = len(lines[0]) - len(lines[0].lstrip()) if lines else 0
    is_begun = False
    for number, line in enumerate(lines):
        words = line.lstrip()
        if is_begun and words and words[0] not in "#)]}" and len(line) - len(words) <= edge:
            return number
        is_begun = is_begun or words.startswith(("def ", "async def "))
    return len(lines)


def _joined(lines: Sequence[str]) -> str:
    kept = list(lines)
    while kept and (not kept[-1].strip() or kept[-1].lstrip().startswith("#")):
        kept.pop()
    return textwrap.dedent("".join(kept)).rstrip() + "\n"


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


def _chains(nodes: Sequence[ast.AST], name: str) -> set[Chain]:
    found: set[Chain] = set()
    inner: set[int] = set()
    for node in nodes:  # an attribute comes before what it is an attribute of
        if isinstance(node, ast.Attribute) and id(node) not in inner:
            attributes, base = [node.attr], node.value
            while isinstance(base, ast.Attribute):
                inner.add(id(base))
                attributes, base = [base.attr, *attributes], base.value
            if isinstance(base, ast.Name):
                inner.add(id(base))
                found |= {tuple(attributes)} if base.id == name else set()
        elif isinstance(node, ast.Name) and node.id == name and id(node) not in inner:
            found.add(())
    return found


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

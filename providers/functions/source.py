"""The source text of a function, and the names that it reads from outside. Executes nothing."""

from __future__ import annotations
import __future__

import ast
import copy
import itertools
import linecache
import symtable
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

# Where the DSL keeps the code of a function that it has rewritten.
_ORIGINAL = "_original_code"

_LAMBDA = "<lambda>"
# What `from __future__` changes in the code of a function.
_FUTURES = (
    __future__.absolute_import.compiler_flag
    | __future__.annotations.compiler_flag
    | __future__.barry_as_FLUFL.compiler_flag
    | __future__.division.compiler_flag
    | __future__.generator_stop.compiler_flag
    | __future__.print_function.compiler_flag
    | __future__.unicode_literals.compiler_flag
    | __future__.with_statement.compiler_flag
)
_FAR = 1 << 24  # a line that no text has

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
        declared: the names that it declares global.
        attributes: the names of all attributes that it reads, of whatever.
    """

    chains: Mapping[str, Sequence[Chain]]
    imports: Sequence[tuple[str, str]]
    declared: frozenset[str]
    attributes: frozenset[str]


@dataclass(frozen=True)
class Source:
    """A function as it is written."""

    text: str
    reads: Reads


class Sources:
    """The texts of a process's functions, each file read and parsed once."""

    def __init__(self) -> None:
        self._sources: dict[tuple[str, CodeType], Source] = {}
        self._files: dict[str, _File] = {}

    def of(self, function: FunctionType) -> Source:
        """Return how a function is written. Raises `NoSource`."""
        code = _code(function)
        place = code.co_filename, code
        known = self._sources.get(place)
        if known is None:
            text = self._at_once(code, function.__globals__) or self._file(code, function.__globals__).text_of(code)
            known = self._sources[place] = Source(text, _reads(text, code.co_name.strip("<>")))
        return known

    def imported_as(self, file: str, names: dict[str, Any], name: str) -> tuple[str, str] | None:
        """Return the module from which the text of one imports a name, as it is written there, and its name there.

        `names` are those of the module that the text is of. None if its text does not say so, or says it twice.
        """
        try:
            known = self._files.get(file) or self._files.setdefault(file, _File(file, names))
        except NoSource:
            return None
        found = known.imports.get(name, ())
        return found[0] if len(found) == 1 else None

    def _at_once(self, code: CodeType, names: dict[str, Any]) -> str | None:
        """Return the text of code by its indentation, if it compiles to that; None leaves it to the whole file."""
        if code.co_filename in self._files or code.co_name == _LAMBDA:
            return None
        linecache.checkcache(code.co_filename)
        block = _indented(linecache.getlines(code.co_filename, names)[code.co_firstlineno - 1 :])
        # Any indentation is that of the body of one function, whose arguments the code captures.
        head = f"def _({', '.join(code.co_freevars)}):\n" if block and block[0][:1].isspace() else ""
        text = "\n" * (code.co_firstlineno - 1 - bool(head)) + head + "".join(block)
        try:
            compiled = compile(text, code.co_filename, "exec", code.co_flags & _FUTURES, dont_inherit=True)
        except (SyntaxError, ValueError):
            return None
        is_it = code in _codes(compiled).get((code.co_firstlineno, code.co_name), ())
        return _dedented(block) if is_it else None

    def _file(self, code: CodeType, names: dict[str, Any]) -> _File:
        file = self._files.get(code.co_filename)
        if file is None or not file.has(code):  # it has been edited, and imported again
            linecache.checkcache(code.co_filename)
            file = self._files[code.co_filename] = _File(code.co_filename, names)
            if not file.has(code):
                raise NoSource("has another text than when it was imported")
        return file


class _File:
    """A text, and what is defined in it."""

    def __init__(self, name: str, names: dict[str, Any]) -> None:
        """Read it; `names` are of its module, which knows where the text of a file is that is in no folder."""
        self._name = name
        self._lines = linecache.getlines(name, names)
        if not self._lines:
            raise NoSource("has no source text")
        self._tree = _parsed("".join(self._lines))
        self._defined: dict[tuple[int, str], list[Any]] = {}
        self._compiled: dict[int, Mapping[tuple[int, str], Sequence[CodeType]]] = {}
        self.imports = _imports(self._tree)

    def has(self, code: CodeType) -> bool:
        """Return whether code was compiled from this text: it can have been another one then."""
        flags = code.co_flags & _FUTURES
        if flags not in self._compiled:
            self._compiled[flags] = _codes(_compiled(self._tree, self._name, flags))
        return code in self._compiled[flags].get((code.co_firstlineno, code.co_name), ())

    def text_of(self, code: CodeType) -> str:
        """Return the text of code that it has. Raises `NoSource`."""
        self._defined = self._defined or _definitions(self._tree)
        here = self._defined.get((code.co_firstlineno, code.co_name), [])
        if code.co_name != _LAMBDA:
            texts = {_block(self._lines, code.co_firstlineno, one) for one in here}
        else:
            can_be = [one for one in here if _can_be(one, code)]
            if len(can_be) > 1 and not hasattr(code, "co_positions"):
                can_be = [one for one in can_be if _is(one, code, self._tree)]
            texts = {f"({_segment(self._lines, one)})" for one in can_be}
        if len(texts) != 1:
            raise NoSource("is one of several of its name in a line" if texts else "has no text that can be parsed")
        return texts.pop()


def _code(function: FunctionType) -> CodeType:
    code: CodeType = vars(function).get(_ORIGINAL, function.__code__)
    return code


def _definitions(tree: ast.Module) -> dict[tuple[int, str], list[Any]]:
    """Return the functions of a text, by first line and name."""
    found: dict[tuple[int, str], list[Any]] = {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.decorator_list[0].lineno if node.decorator_list else node.lineno
            found.setdefault((first, node.name), []).append(node)
        elif isinstance(node, ast.Lambda):
            found.setdefault((node.lineno, _LAMBDA), []).append(node)
    return found


def _compiled(tree: ast.Module, name: str, flags: int) -> CodeType:
    try:
        module: CodeType = compile(tree, name, "exec", flags, dont_inherit=True)
        return module
    except (SyntaxError, ValueError):
        raise NoSource("has no text that can be parsed") from None


def _codes(module: CodeType) -> Mapping[tuple[int, str], Sequence[CodeType]]:
    """Return all code in that of a module, by first line and name."""
    found: dict[tuple[int, str], list[CodeType]] = {}
    left = [module]
    while left:
        code = left.pop()
        found.setdefault((code.co_firstlineno, code.co_name), []).append(code)
        left += [one for one in code.co_consts if isinstance(one, CodeType)]
    return found


def _block(lines: Sequence[str], first: int, node: ast.stmt) -> str:
    return _dedented(lines[first - 1 : node.end_lineno])


def _dedented(lines: Sequence[str]) -> str:
    return textwrap.dedent("".join(lines)).rstrip() + "\n"


def _indented(lines: Sequence[str]) -> list[str]:
    """Return the lines of the function that begins them, by their indentation, which a string or a bracket deceives."""
    edge = len(lines[0]) - len(lines[0].lstrip()) if lines else 0
    is_begun, last = False, 0
    for number, line in enumerate(lines):
        words = line.lstrip()
        if not words or words[0] == "#":
            continue
        if is_begun and words[0] not in ")]}" and len(line) - len(words) <= edge:
            break
        is_begun, last = is_begun or words.startswith(("def ", "async def ")), number
    return list(lines[: last + 1])


def _parsed(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError):
        raise NoSource("has no text that can be parsed") from None


# Lambdas


def _segment(lines: Sequence[str], node: ast.Lambda) -> str:
    end_line, end = node.end_lineno or node.lineno, node.end_col_offset or 0
    part = [line.encode() for line in lines[node.lineno - 1 : end_line]]
    part[-1] = part[-1][:end]
    part[0] = part[0][node.col_offset :]
    return b"".join(part).decode()


def _can_be(node: ast.Lambda, code: CodeType) -> bool:
    """Return whether code can be that of a lambda: by its arguments and, from Python 3.11 on, its columns."""
    arguments = node.args
    names = [one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    if tuple(names) != code.co_varnames[: len(names)] or code.co_argcount + code.co_kwonlyargcount != len(names):
        return False
    positions = getattr(code, "co_positions", tuple)
    spans = [one for one in positions() if None not in one and (one[0], one[2]) != (one[1], one[3])]
    body = (node.body.lineno, node.body.col_offset), (node.body.end_lineno, node.body.end_col_offset)
    return all(body[0] <= (first, start) and (last, end) <= body[1] for first, last, start, end in spans)


def _is(node: ast.Lambda, code: CodeType, tree: ast.Module) -> bool:
    """Return whether code is that of a lambda: it is compiled once more, on a line of its own."""
    place = node.lineno, node.col_offset
    moved = copy.deepcopy(tree)
    for one in ast.walk(moved):
        if isinstance(one, ast.Lambda) and (one.lineno, one.col_offset) == place:
            one.lineno = one.end_lineno = _FAR
    found = _codes(_compiled(moved, code.co_filename, code.co_flags & _FUTURES)).get((_FAR, _LAMBDA), ())
    return any(one.replace(co_firstlineno=code.co_firstlineno) == code for one in found)


# Names


def _imports(tree: ast.Module) -> Mapping[str, Sequence[tuple[str, str]]]:
    """Return from where each name of a module is imported, by the text of the module itself."""
    found: dict[str, list[tuple[str, str]]] = {}
    left: list[ast.AST] = [tree]
    while left:
        node = left.pop()
        if isinstance(node, ast.ImportFrom):
            for one in node.names:
                places = found.setdefault(one.asname or one.name, [])
                place = "." * node.level + (node.module or ""), one.name
                places += [place] if place not in places else []
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.expr)):
            left += ast.iter_child_nodes(node)
    return found


def _reads(text: str, name: str) -> Reads:
    try:
        tree = _parsed(text)
    except NoSource:  # a string in it begins further to the left than it does
        text = f"if True:\n{text}"
        tree = _parsed(text)
    outside, declared = _outside(_own_table(symtable.symtable(text, "<text>", "exec"), name))
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
    attributes_read = frozenset(node.attr for node in nodes if isinstance(node, ast.Attribute))
    imports = sorted(set(itertools.chain.from_iterable(map(_imported, nodes))))
    return Reads(own, imports, frozenset(declared), attributes_read)


def _own_table(module: symtable.SymbolTable, name: str) -> symtable.SymbolTable:
    own = [table for table in module.get_children() if table.get_name() == name and table.get_type() == "function"]
    if not own:
        raise NoSource("has no text that can be parsed")
    return own[-1]  # a lambda comes after those that are its defaults


def _outside(table: symtable.SymbolTable) -> tuple[set[str], set[str]]:
    """Return the names that are looked up outside of a function and those in it, and which it declares global."""
    found, declared = set(), set()
    for one in table.get_symbols():
        is_of_class = table.get_type() == "class" and one.is_local()  # it is the outer one until it is assigned
        if one.is_declared_global():
            declared.add(one.get_name())
        elif one.is_referenced() and (one.is_global() or is_of_class):
            found.add(one.get_name())
    for inner in table.get_children():
        outside, more = _outside(inner)
        found, declared = found | outside, declared | more
    return found | declared, declared


def _imported(node: Any) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Import):
        yield from ((one.name, "*") for one in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (("." * node.level + (node.module or ""), one.name) for one in node.names)

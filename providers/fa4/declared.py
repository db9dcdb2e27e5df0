"""Which compile caches a module's source has, read by a parser; and those of them that nobody would find.

For builds, tests, and the start of a strict job: a parser takes a quarter of a second. The text is read by `written.py`
otherwise, which does not see every shape that Python has.
"""

from __future__ import annotations

import ast
import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType

from .slots import places_of, resolve
from .written import Written, source_of

_COMPILER = ("compile(", "compile[", "compile (", "import compile", "compile as", "compile,")
_Function = (ast.FunctionDef, ast.AsyncFunctionDef)


def unfound(module: ModuleType) -> list[str]:
    """Return the places of a module's source that keep what they compile where it can't be found.

    Each as `file.py:123: expression`. Nothing for a module without source.
    """
    source = source_of(module)
    found = {place.identity for place in places_of(module)}
    missing = []
    for one in declared(source):
        place = None if one.place is None else resolve(module, one.place)
        if place is None or place.identity not in found:
            missing.append(f"{os.path.basename(module.__file__ or '')}:{one.line}: `{one.target}`")
    return missing


def declared(source: str) -> Sequence[Written]:
    """Return where a source keeps what it compiles, `target` with its key. Empty if it is no Python."""
    return _read(source).declared


def launched_by_name(source: str) -> frozenset[str]:
    """Return the places whose kernels a source gives arguments by name: `X[key](q=q)`, or `f = X[key]; f(q=q)`."""
    return _read(source).by_name


@dataclass(frozen=True)
class _Read:
    """What is asked of a source."""

    declared: tuple[Written, ...] = ()
    by_name: frozenset[str] = frozenset()


@functools.cache
def _read(source: str) -> _Read:
    if not any(word in source for word in _COMPILER):  # a parser takes long for nothing
        return _Read()
    try:
        reader = _Reader(ast.parse(source))
    except (SyntaxError, ValueError):
        return _Read()
    return _Read(tuple(reader.declared()), frozenset(reader.launched_by_name()))


@dataclass(frozen=True)
class _Scope:
    """A function, or the module: what is assigned in it, and its parameters."""

    assigned: dict[str, list[ast.expr]]
    parameters: frozenset[str]
    nodes: Sequence[ast.AST]
    outer: _Scope | None

    @property
    def is_module(self) -> bool:
        return self.outer is None

    def holder(self, name: str) -> _Scope:
        """Return the innermost scope that has a name: the module, if none is seen to."""
        scope = self
        while scope.outer is not None and name not in scope.assigned and name not in scope.parameters:
            scope = scope.outer
        return scope


class _Reader:
    def __init__(self, tree: ast.Module) -> None:
        self._compilers = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "cutlass.cute"
            for alias in node.names
            if alias.name == "compile"
        }
        self._scopes = list(_scopes(tree))
        self._scripted = _scripted(tree)
        self._compiling: set[str] = set()
        self._compiling = self._compiling_functions()

    def declared(self) -> Iterator[Written]:
        for function, scope in self._scopes:
            handed = scope.parameters if function in self._scripted else frozenset[str]()
            for node in scope.nodes:
                for target, value in _puts(node):
                    if isinstance(target.value, ast.Name) and target.value.id in handed:
                        continue  # a script's own mapping, which it hands to its benchmark
                    if self._keeps(value, scope) and not self._is_fresh(target, scope):
                        expression = " ".join(ast.unparse(target).split())
                        is_plain = isinstance(target, ast.Subscript) and self._is_compiled(value, scope)
                        place = self._place(target.value, scope) if is_plain else None
                        yield Written(target.lineno, expression, place)

    def launched_by_name(self) -> Iterator[str]:
        for _, scope in self._scopes:
            for node in scope.nodes:
                if isinstance(node, ast.Call) and node.keywords:
                    places = (self._place(cache, scope) for cache in _looked_up_in(node.func, scope))
                    yield from (place for place in places if place)

    def _compiling_functions(self) -> set[str]:
        while True:
            more = {
                name
                for name, scope in self._scopes
                for node in scope.nodes
                if isinstance(node, ast.Return) and node.value and self._is_compiled(node.value, scope)
            }
            if more == self._compiling:
                return more
            self._compiling = more

    def _is_compiled(self, value: ast.expr, scope: _Scope) -> bool:
        """Return whether the value of an expression is what a compile returned."""
        match value:
            case ast.Call(func=function):
                return self._is_compiler(function)
            case ast.Name(id=name):
                holder = scope.holder(name)
                return any(self._is_compiled(item, holder) for item in holder.assigned.get(name, ()) if item != value)
            case ast.IfExp(body=one, orelse=other):
                return self._is_compiled(one, scope) or self._is_compiled(other, scope)
            case ast.NamedExpr(value=inner):
                return self._is_compiled(inner, scope)
        return False

    def _is_compiler(self, function: ast.expr) -> bool:
        match function:
            case ast.Subscript(value=inner):  # with options
                return self._is_compiler(inner)
            case ast.Name(id=name):
                return name in self._compilers or name in self._compiling
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name):
                return name in self._compiling
        return ast.unparse(function).split(".")[-2:] == ["cute", "compile"]

    def _keeps(self, value: ast.expr, scope: _Scope) -> bool:
        """Return whether an expression is, or holds, what a compile returned."""
        if self._is_compiled(value, scope):
            return True
        if isinstance(value, (ast.Tuple, ast.List)):
            return any(self._keeps(item, scope) for item in value.elts)
        if isinstance(value, ast.Dict):
            return any(self._keeps(item, scope) for item in value.values)
        if isinstance(value, ast.Call):
            return any(isinstance(item, ast.Call) and self._keeps(item, scope) for item in value.args)
        return False

    def _is_fresh(self, target: ast.Subscript | ast.Attribute, scope: _Scope) -> bool:
        """Return whether the target is a mapping that the function has just made: it ends with the call."""
        match target.value:
            case ast.Name(id=name) if not scope.is_module:
                return any(_makes_mapping(value) for value in scope.assigned.get(name, ()))
        return False

    def _place(self, target: ast.expr, scope: _Scope) -> str | None:
        match target:
            case ast.Name(id=name):
                holder = scope.holder(name)
                if holder.is_module:
                    return name
                values = holder.assigned.get(name, [])
                return self._place(values[-1], holder) if values and name not in holder.parameters else None
            case ast.Attribute(value=inner, attr=name):
                root = self._place(inner, scope)
                return f"{root}.{name}" if root and not root.endswith(")") else None
            case ast.Call(func=ast.Name(id=name), args=[], keywords=[]) if scope.holder(name).is_module:
                return f"{name}()"
        return None


def _scripted(tree: ast.Module) -> frozenset[str]:
    """Return the functions that a module has for when it is run as a script: nothing else in it mentions them."""
    is_main = [isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'" for node in tree.body]
    functions = {node.name: node for node in tree.body if isinstance(node, _Function)}
    others = [node for node, main in zip(tree.body, is_main, strict=True) if not main]
    scripted = _mentioned([node for node, main in zip(tree.body, is_main, strict=True) if main]) & functions.keys()
    while scripted:
        left = [node for node in others if getattr(node, "name", None) not in scripted]
        if not (called := scripted & _mentioned(left)):
            break
        scripted -= called
    return frozenset(scripted)


def _mentioned(nodes: Sequence[ast.AST]) -> set[str]:
    return {name.id for node in nodes for name in ast.walk(node) if isinstance(name, ast.Name)}


def _scopes(tree: ast.Module) -> Iterator[tuple[str, _Scope]]:
    """Yield the module and each function of it, by name; a method is a function."""

    def visit(
        name: str, body: Sequence[ast.AST], parameters: frozenset[str], outer: _Scope | None
    ) -> Iterator[tuple[str, _Scope]]:
        nodes: list[ast.AST] = []
        functions: list[ast.FunctionDef | ast.AsyncFunctionDef] = []
        waiting = list(body)
        while waiting:
            node = waiting.pop(0)
            if isinstance(node, _Function):
                functions.append(node)
                continue
            nodes.append(node)
            waiting[:0] = list(ast.iter_child_nodes(node))
        scope = _Scope(_assigned(nodes), parameters, nodes, outer)
        yield name, scope
        for function in functions:
            arguments = function.args
            every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
            names = frozenset(argument.arg for argument in every if argument)
            yield from visit(function.name, function.body, names, scope)

    return visit("", tree.body, frozenset(), None)


def _assigned(nodes: Sequence[ast.AST]) -> dict[str, list[ast.expr]]:
    found: dict[str, list[ast.expr]] = {}
    elsewhere = {name for node in nodes if isinstance(node, (ast.Global, ast.Nonlocal)) for name in node.names}
    for node in nodes:
        match node:
            case ast.Assign(targets=several, value=value):
                targets = several
            case ast.AnnAssign(target=one, value=ast.expr() as value):
                targets = [one]
            case ast.NamedExpr(target=name, value=value):
                targets = [name]
            case _:
                continue
        for target in targets:
            if isinstance(target, ast.Name) and target.id not in elsewhere:
                found.setdefault(target.id, []).append(value)
    return found


def _puts(node: ast.AST) -> Iterator[tuple[ast.Subscript | ast.Attribute, ast.expr]]:
    """Yield what a statement puts into mappings: `X[key] = value`, and `X.setdefault(key, value)`."""
    match node:
        case ast.Assign(targets=targets, value=value):
            yield from ((target, value) for target in targets if isinstance(target, ast.Subscript))
        case ast.AnnAssign(target=ast.Subscript() as target, value=ast.expr() as value):
            yield target, value
        case ast.Call(func=ast.Attribute(attr="setdefault") as target, args=[_, value]):
            yield target, value


def _looked_up_in(function: ast.expr, scope: _Scope) -> Iterator[ast.expr]:
    """Yield the caches that a called function may be from: `X` of `X[key]`, `X.get(key)`, and of a name for these."""
    match function:
        case ast.Subscript(value=cache) | ast.Call(func=ast.Attribute(value=cache, attr="get" | "setdefault")):
            yield cache
        case ast.Name(id=name):
            for value in scope.assigned.get(name, ()):
                if not isinstance(value, ast.Name):
                    yield from _looked_up_in(value, scope)


def _makes_mapping(value: ast.expr) -> bool:
    return isinstance(value, (ast.Dict, ast.DictComp)) or (
        isinstance(value, ast.Call) and ast.unparse(value.func).split(".")[-1] in ("dict", "OrderedDict")
    )

"""What the text of a module binds its names to. Imports nothing.

A module's text tells what a name is only as far as nothing else is done to the module: `is_plain` says so.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

_AROUND = ("__dict__", "eval", "exec", "globals", "locals", "modules", "setattr", "vars")
"""Names by which a module is changed in ways that no statement shows: `globals()[name] = ...`, `sys.modules[...]`."""

_CLOSED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.Import, ast.ImportFrom)


@dataclass(frozen=True)
class Imported:
    """A name that is a module (`attribute` is empty), or what a module calls so."""

    module: str
    attribute: str = ""


@dataclass(frozen=True)
class Assigned:
    """A name that is the value of an expression."""

    value: ast.expr


Binding = Imported | Assigned | ast.FunctionDef | None
"""None is any other: a class, a loop's variable, `del`."""


@dataclass(frozen=True)
class Names:
    """The names of a module.

    Attributes:
        bindings: by name, all that it is bound to, also within `if` and `try`.
        is_plain: whether these are all: no `import *`, no way around.
        imports: what its statements import, wherever they stand: modules, and `module.name` of what may be one.
    """

    bindings: Mapping[str, Sequence[Binding]]
    is_plain: bool
    imports: Sequence[str] = ()

    @property
    def has_getattr(self) -> bool:
        """Return whether the module makes names when it is asked for them."""
        return "__getattr__" in self.bindings

    def only(self, name: str) -> Binding:
        """Return what a name is bound to if that is one thing."""
        bindings = self.bindings.get(name, ())
        return bindings[0] if len(bindings) == 1 else None


def read_names(source: bytes, module: str, is_package: bool) -> Names | None:
    """Return the names of a module's text, or None if it is no Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    package = module.split(".") if is_package else module.split(".")[:-1]
    bindings: dict[str, list[Binding]] = {}
    is_plain = True
    imports: list[str] = []
    for node in ast.walk(tree):
        imports += _imported(node, package)
        if isinstance(node, ast.Global):  # a function of the module that assigns its names
            for name in node.names:
                bindings.setdefault(name, []).append(None)
        used = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
        is_plain = is_plain and used not in _AROUND
    for statement in _of_the_module(tree):
        for name, binding in _bound(statement, package):
            known = bindings.setdefault(name, [])
            if not isinstance(binding, Imported) or binding not in known:  # `import a.b` and `import a.c` are one `a`
                known.append(binding)
    return Names(bindings, is_plain and "*" not in bindings, tuple(dict.fromkeys(imports)))


def _imported(node: ast.AST, package: list[str]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        source = _source(node, package)
        return [source, *(f"{source}.{alias.name}" for alias in node.names)]
    return []


def _source(node: ast.ImportFrom, package: list[str]) -> str:
    """Return the module that an import takes its names from."""
    parent = package[: len(package) - node.level + 1] if node.level else []
    return ".".join([*parent, *([node.module] if node.module else [])])


def _of_the_module(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield what runs in the module's own scope; of an assignment to a name not the name again."""
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        yield node
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and _target(node) is not None:
            todo += [node.value] if node.value else []
        elif not isinstance(node, _CLOSED):
            todo += ast.iter_child_nodes(node)


def _target(node: ast.Assign | ast.AnnAssign) -> str | None:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return targets[0].id if len(targets) == 1 and isinstance(targets[0], ast.Name) else None


def _bound(node: ast.AST, package: list[str]) -> Iterator[tuple[str, Binding]]:
    match node:
        case ast.FunctionDef(name=name):
            yield name, node
        case ast.Assign() | ast.AnnAssign() if (target := _target(node)) is not None:
            if node.value is not None:
                yield target, Assigned(node.value)
        case ast.Import(names=aliases):
            for alias in aliases:
                top = alias.name.split(".")[0]
                yield (alias.asname, Imported(alias.name)) if alias.asname else (top, Imported(top))
        case ast.ImportFrom(names=aliases):
            source = _source(node, package)
            for alias in aliases:
                yield alias.asname or alias.name, Imported(source, alias.name)
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            yield name, None
        case (
            ast.AsyncFunctionDef(name=str(name))
            | ast.ClassDef(name=str(name))
            | ast.ExceptHandler(name=str(name))
            | ast.MatchAs(name=str(name))
            | ast.MatchStar(name=str(name))
            | ast.MatchMapping(rest=str(name))
        ):
            yield name, None

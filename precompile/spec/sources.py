"""The source of the functions that a spec names: it means another thing when one of them has changed."""

from __future__ import annotations

import ast
import builtins
import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path

from ...providers.call import Variant
from ...providers.packages import is_in
from .names import Assigned, Binding, Imported, Names, read_names

NOT_FOUND = "not found"
_MOST_MODULES = 500

# What a function's module may import of the standard library: nothing that reads a file, a variable, a clock or chance.
_THE_SAME_EVERYWHERE = (
    "__future__",
    "collections",
    "contextlib",
    "dataclasses",
    "enum",
    "functools",
    "itertools",
    "math",
    "operator",
    "types",
    "typing",
)
_OURS = __name__.partition(".")[0]


@dataclass(frozen=True)
class Sources:
    """The files that functions are made of.

    Attributes:
        digests: SHA-256 by module, of each file on the way from a function's name to its code.
        untold: functions whose code no file on the way tells for sure, with the reason.
    """

    digests: Mapping[str, str]
    untold: Mapping[str, str]


def function_sources(variants: Iterable[Variant], pinned: Sequence[str] = ()) -> Sources:
    """Follow the functions of the variants to where their code is, in the text of modules; import none of them.

    `pinned` are packages whose code is in the toolchain's identity.
    """
    variants = list(variants)
    walk = _Walk((_OURS, *pinned))
    untold = {}
    functions = {reference for variant in variants for reference in variant.functions}
    functions |= {variant.caller for variant in variants if variant.caller is not None}
    for reference in sorted(functions):
        module, _, attribute = reference.partition(":")
        reason = walk.follow(module, attribute.split("."))
        reason = reason or walk.follow_imports(module)
        if reason:
            untold[reference] = reason
    return Sources(dict(sorted(walk.digests.items())), untold)


class _Walk:
    def __init__(self, pinned: Sequence[str]) -> None:
        self.digests: dict[str, str] = {}
        self._pinned = pinned
        self._names: dict[str, Names | None] = {}
        self._here: list[tuple[str, str]] = []

    def follow(self, module: str, path: list[str]) -> str:
        """Take note of the files on the way to an attribute of a module; return why it is not told, or nothing."""
        names = self._read(module)
        if self.digests[module] == NOT_FOUND:
            return f"`{module}` is {NOT_FOUND}"
        if self._is_pinned(module):
            return ""  # its functions are made of its own text, whatever way they are made
        name, *rest = path
        if names is None:
            return f"`{module}` is not written in Python"
        if (module, name) in self._here:
            return f"`{module}` imports `{name}` in a circle"
        bindings = names.bindings.get(name, ())
        if not bindings and rest and not names.has_getattr and _find(f"{module}.{name}") is not None:
            return self.follow(f"{module}.{name}", rest)
        self._here.append((module, name))
        reasons = [self._follow(module, names, name, binding, rest) for binding in bindings]
        self._here.pop()
        if not names.is_plain or len(bindings) != 1:
            return f"the text of `{module}` does not tell what `{name}` is"
        return reasons[0]

    def follow_imports(self, module: str) -> str:
        """Take note of a function's module, and of all that it imports; return why it is not told, or nothing.

        A function may read what it likes of these.
        """
        todo, seen = [module], set()
        while todo:
            current = todo.pop()
            if current in seen or self._is_pinned(current) or is_in(current, "torch"):
                continue
            seen.add(current)
            if current.partition(".")[0] in sys.stdlib_module_names:
                if current.partition(".")[0] not in _THE_SAME_EVERYWHERE:
                    return f"`{module}` imports `{current}`, by which it can read what no file tells"
                continue
            names = self._read(current)
            if self.digests[current] == NOT_FOUND:
                del self.digests[current]
                if current == module or len(seen) > _MOST_MODULES:
                    return f"`{current}` is {NOT_FOUND}"
                continue  # a name of the module that it is imported from, or an import that is tried
            if names is None:
                return f"`{module}` imports `{current}`, which is not written in Python"
            if len(seen) > _MOST_MODULES:
                return f"`{module}` imports more than {_MOST_MODULES} modules"
            parents = current.split(".")[:-1]
            todo += [".".join(parents[: n + 1]) for n in range(len(parents))]
            todo += names.imports
        return ""

    def _follow(self, module: str, names: Names, name: str, binding: Binding, rest: list[str]) -> str:
        if isinstance(binding, Imported):
            path = [binding.attribute, *rest] if binding.attribute else rest
            return self.follow(binding.module, path) if path else f"`{module}:{name}` is a module"
        if isinstance(binding, ast.FunctionDef) and not rest:
            arguments = binding.args
            values = [*binding.decorator_list, *arguments.defaults, *filter(None, arguments.kw_defaults)]
            if all(self._is_told(names, value) for value in values):
                return ""
            return f"`{module}:{name}` has a decorator or a default that its text does not tell"
        return f"`{module}:{name}` is no `def` of the module"

    def _is_told(self, names: Names, value: ast.expr, depth: int = 10) -> bool:
        """Return whether a value is what the module's text says: of constants, and of names of pinned packages."""
        if isinstance(value, ast.Constant):
            return True
        if isinstance(value, (ast.Tuple, ast.List)):
            return all(self._is_told(names, item, depth) for item in value.elts)
        if isinstance(value, ast.UnaryOp):
            return self._is_told(names, value.operand, depth)
        if isinstance(value, ast.BinOp):
            return self._is_told(names, value.left, depth) and self._is_told(names, value.right, depth)
        if isinstance(value, ast.Attribute):
            return self._is_told(names, value.value, depth)
        if not isinstance(value, ast.Name) or not names.is_plain:
            return False
        binding = names.only(value.id)
        if isinstance(binding, Imported):
            return self._is_pinned(binding.module)
        if isinstance(binding, Assigned):
            return depth > 0 and self._is_told(names, binding.value, depth - 1)
        return value.id not in names.bindings and hasattr(builtins, value.id)

    def _is_pinned(self, module: str) -> bool:
        return any(is_in(module, package) for package in self._pinned)

    def _read(self, module: str) -> Names | None:
        if module not in self.digests:
            spec = _find(module)
            source = _source(spec)
            self.digests[module] = _digest(source)
            is_text = spec is not None and source is not None and isinstance(spec.loader, SourceFileLoader)
            is_package = spec is not None and spec.submodule_search_locations is not None
            self._names[module] = read_names(source or b"", module, is_package) if is_text else None
        return self._names[module]


def module_digest(module: str) -> str:
    """Return what `Sources.digests` has of a module, as it is on this machine. Imports nothing."""
    return _digest(_source(_find(module)))


def _source(spec: ModuleSpec | None) -> bytes | None:
    path = Path(spec.origin) if spec and spec.origin else None
    return path.read_bytes() if path and path.is_file() else None


def _digest(source: bytes | None) -> str:
    return NOT_FOUND if source is None else hashlib.sha256(source).hexdigest()


def _find(module: str) -> ModuleSpec | None:
    """Return where a module is. Imports nothing, not even its parent packages."""
    top, *rest = module.split(".")
    name = top
    try:
        spec = importlib.util.find_spec(top)
        for part in rest:
            if spec is None or spec.submodule_search_locations is None:
                return None
            name = f"{name}.{part}"
            spec = PathFinder.find_spec(name, list(spec.submodule_search_locations))
    except Exception:  # `__main__` has no spec; and finders are other people's code
        return None
    return spec

"""The names of the positions of FlashAttention-4's keys, from its source; for people only. Standard library only."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType

from ..loaded import loaded_modules
from .slots import ATTRIBUTE, slot_name, source_of

_GETTER = re.compile(r"(?:\w+\.)*get_(\w+)\(\)")


def key_names(package: str, slot: str, length: int) -> Sequence[str]:
    """Return the expressions that a slot's key is built from, or numbers if the source has none of that length.

    For people only. A setting that is read by a call, `get_fa_log_level()`, is named as one: `FA_LOG_LEVEL`.
    """
    for module in loaded_modules(package):
        for names in _key_expressions(module).get(slot, ()):
            if len(names) == length == len(set(names)):
                return names
    return [str(position) for position in range(length)]


def named_key(package: str, slot: str, key: object) -> dict[str, object]:
    """Return the values of a slot's key by the names of its positions, in their order."""
    values = key if isinstance(key, tuple) else (key,)
    return dict(zip(key_names(package, slot, len(values)), values, strict=True))


@functools.cache
def _key_expressions(module: ModuleType) -> Mapping[str, Sequence[Sequence[str]]]:
    source = source_of(module)
    if ATTRIBUTE not in source:  # most of the provider's modules; a job should not wait for a parser
        return {}
    found: dict[str, list[list[str]]] = {}
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef):
            found.setdefault(slot_name(module, function.name), []).extend(_key_tuples(function))
    return found


def _key_tuples(function: ast.FunctionDef) -> Iterator[list[str]]:
    for node in ast.walk(function):
        match node:
            case ast.Assign(targets=[ast.Name(id="compile_key" | "cache_key")], value=ast.Tuple(elts=elements)):
                yield [_name(element) for element in elements]
            case ast.Assign(targets=[ast.Name(id="compile_key" | "cache_key")], value=element):
                yield [_name(element)]


def _name(element: ast.expr) -> str:
    expression = " ".join(ast.unparse(element).split())
    getter = _GETTER.fullmatch(expression)
    return getter[1].upper() if getter else expression

"""A provider's compile caches, found in its loaded modules; their names and their keys' positions, from its source.

Standard library only. Nothing here lists the slots: they are whatever has the attribute.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, Protocol

_NAMED = re.compile(r"^(\w+)\.compile_cache\s*=\s*\w+\(\s*[\"'](\w+)[\"']", re.MULTILINE)
_GETTER = re.compile(r"(?:\w+\.)*get_(\w+)\(\)")


class SlotOwner(Protocol):
    """A function of the provider that keeps what it compiled: `owner.compile_cache`."""

    compile_cache: Any


def find_slots(package: str) -> dict[str, SlotOwner]:
    """Return the compile caches in the loaded modules of a package, by slot name."""
    return {name: owner for module in loaded_modules(package) for name, owner in slots_of(module).items()}


def slots_of(module: ModuleType) -> dict[str, SlotOwner]:
    """Return the compile caches of the functions that a module defines, by slot name."""
    own: dict[str, SlotOwner] = {}
    for attribute, owner in list(vars(module).items()):
        if getattr(owner, "__module__", None) != module.__name__ or not hasattr(owner, "compile_cache"):
            continue
        if all(owner is not known for known in own.values()):  # a second name is no second slot
            own[attribute] = owner
    names = _slot_names(module) if own else {}
    return {names.get(attribute, attribute.strip("_")): owner for attribute, owner in own.items()}


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


def loaded_modules(package: str) -> list[ModuleType]:
    """Return the modules of a package that are in the process, by name."""
    prefix = f"{package}."
    # A process with torch has thousands of modules, and a plan asks for each key.
    own = [name for name in list(sys.modules) if name.startswith(prefix)]
    return [module for name in sorted(own) if (module := sys.modules.get(name)) is not None]


@functools.cache
def _slot_names(module: ModuleType) -> Mapping[str, str]:
    """Return function name to slot name, from `function.compile_cache = get_jit_cache("name")` in the source.

    By pattern, as a job would wait a quarter of a second for a parser.
    """
    return dict(_NAMED.findall(_source(module)))


@functools.cache
def _key_expressions(module: ModuleType) -> Mapping[str, Sequence[Sequence[str]]]:
    source = _source(module)
    if "compile_cache" not in source:  # most of the provider's modules; a job should not wait for a parser
        return {}
    found: dict[str, list[list[str]]] = {}
    names = _slot_names(module)
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef):
            slot = names.get(function.name, function.name.strip("_"))
            found.setdefault(slot, []).extend(_key_tuples(function))
    return found


def _source(module: ModuleType) -> str:
    try:
        return inspect.getsource(module)
    except (OSError, TypeError):  # installed without source: names are for people only
        return ""


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

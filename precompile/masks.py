"""Finding a `mask_mod` or `score_mod` by its name, if it means the same in every process."""

from __future__ import annotations

import dis
import hashlib
import importlib
import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

from ..cache.toolchain import package_folder
from ..errors import UsageError
from .variant import MODIFIERS, Variant

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_PLAIN = (type(None), bool, int, float, str, bytes)
# Packages whose code can't change without the toolchain's identity, or that have nothing to change.
_PINNED = ("builtins", "cutlass", "flash_attn", "math", "operator", "quack", "typing")


def find_modifier(reference: str, package: str) -> Any:
    """Return the function that `module:attribute` names; `package` is FA4's.

    Raises `UsageError` if it can't be imported, or if FA4's hash does not tell all that it does.
    """
    module, _, attribute = reference.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:
        hint = "it must be installed where the kernels are built and where they are used, or be on PYTHONPATH"
        raise UsageError(f"`{reference}` can't be imported: {type(error).__name__}: {error}", hint) from None
    require_identifiable(reference, found, package)
    return found


def modifier_sources(variants: Iterable[Variant]) -> dict[str, str]:
    """Return the SHA-256 of each module that a `mask_mod` or `score_mod` is in; imports none of them.

    A spec means another thing when one of them has changed.
    """
    references = {reference for one in variants for name in MODIFIERS if (reference := getattr(one, name)) is not None}
    found = {}
    for module in sorted({reference.partition(":")[0] for reference in references}):
        *parents, name = module.split(".")
        folder = package_folder(".".join(parents)) if parents else None
        path = folder / f"{name}.py" if folder else None
        if path is None and (spec := importlib.util.find_spec(name) if not parents else None):
            path = Path(spec.origin) if spec.origin else None
        found[module] = hashlib.sha256(path.read_bytes()).hexdigest() if path and path.is_file() else "not found"
    return found


def require_identifiable(name: str, function: Any, package: str) -> None:
    """Raise `UsageError` unless FA4's hash of a function tells all that the function does.

    FA4 hashes a function's own source, and the `repr` of what its closure and its defaults hold; `package` is FA4's.
    A tensor's `repr` is not its content, and that of an object with an address differs in each process. What the
    function reads from its module, a constant or another function, is in no hash: with another value FA4 would take the
    old kernel. Names of packages that a toolchain pins are not of that kind.
    """
    pinned = {*_PINNED, package.partition(".")[0]}
    wrapper, function = function, getattr(function, "__wrapped__", function)
    code = getattr(function, "__code__", None)
    if code is None:
        raise UsageError(f"`{name}` is {_a(type(function).__qualname__)}, not a function")
    if wrapper is not function and not (_is_pinned(wrapper, pinned) and not hasattr(function, "__wrapped__")):
        raise UsageError(
            f"`{name}` is wrapped by a decorator, which FlashAttention's hash of the function leaves out",
            "decorate it with nothing but `cute.jit`",
        )
    for captured, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            _require(name, captured, cell.cell_contents, pinned)
        except ValueError:
            raise UsageError(f"`{name}` captures `{captured}`, which has no value yet") from None
    for position, value in enumerate(function.__defaults__ or ()):
        _require(name, f"default {position}", value, pinned)
    for argument, value in (function.__kwdefaults__ or {}).items():
        _require(name, argument, value, pinned)
    for read, root in _reads(code, function.__globals__):
        if root not in pinned:
            raise UsageError(
                f"`{name}` reads `{read}` of its module, which FlashAttention's hash of the function leaves out: a "
                "kernel that was built with another one would be taken for it",
                "capture numbers in a closure or as defaults, and write out what a helper does",
            )


def _is_pinned(wrapper: Any, pinned: set[str]) -> bool:
    module = getattr(wrapper, "__globals__", {}).get("__name__", "")
    return str(module).partition(".")[0] in pinned


def _reads(code: CodeType, variables: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the names that a function reads from outside, and the package that each is from."""
    for instruction in dis.get_instructions(code):
        name = instruction.argval
        if instruction.opname == "IMPORT_NAME":
            yield name, name.partition(".")[0]
        elif instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME") and name in variables:
            yield name, _package_of(variables[name])
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _reads(constant, variables)


def _package_of(value: Any) -> str:
    """Return the package that a module, function or class is from; of anything else, which could change, nothing."""
    if isinstance(value, ModuleType):
        return value.__name__.partition(".")[0]
    if isinstance(value, (type, FunctionType, BuiltinFunctionType)):
        return str(value.__module__).partition(".")[0]
    return ""


def _require(name: str, captured: str, value: object, pinned: set[str]) -> None:
    if isinstance(value, _PLAIN) or (isinstance(value, type) and _package_of(value) in pinned):
        return
    if isinstance(value, (tuple, list, frozenset)):
        for item in value:
            _require(name, captured, item, pinned)
        return
    code = isinstance(value, (type, ModuleType))
    if code or _ADDRESS.search(repr(value)) or hasattr(value, "data_ptr") or hasattr(value, "fileno"):
        kind = _a(f"{type(value).__module__}.{type(value).__qualname__}")
        raise UsageError(
            f"`{name}` captures `{captured}`, {kind}, which can't be recognized in another process",
            "capture numbers and strings; pass tensors as `aux_tensors`",
        )


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"

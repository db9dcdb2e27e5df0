"""Finding a `mask_mod` or `score_mod` by its name, if it means the same in every process."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..cache.toolchain import package_folder
from ..errors import UsageError
from .variant import Variant

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_PLAIN = (type(None), bool, int, float, str, bytes)


def find_modifier(reference: str) -> Any:
    """Return the function that `module:attribute` names.

    Raises `UsageError` if it can't be imported, or captures something that can't be recognized in another process.
    """
    module, _, attribute = reference.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:
        hint = "it must be installed where the kernels are built and where they are used, or be on PYTHONPATH"
        raise UsageError(f"`{reference}` can't be imported: {type(error).__name__}: {error}", hint) from None
    _require_identifiable(reference, found)
    return found


def modifier_sources(variants: Iterable[Variant]) -> dict[str, str]:
    """Return the SHA-256 of each module that a `mask_mod` or `score_mod` is in; imports none of them.

    A spec means another thing when one of them has changed.
    """
    references = {
        reference for one in variants for reference in (one.mask_mod, one.score_mod, one.score_mod_bwd) if reference
    }
    found = {}
    for module in sorted({reference.partition(":")[0] for reference in references}):
        *parents, name = module.split(".")
        folder = package_folder(".".join(parents)) if parents else None
        path = folder / f"{name}.py" if folder else None
        if path is None and (spec := importlib.util.find_spec(name) if not parents else None):
            path = Path(spec.origin) if spec.origin else None
        found[module] = hashlib.sha256(path.read_bytes()).hexdigest() if path and path.is_file() else "not found"
    return found


def _require_identifiable(reference: str, function: Any) -> None:
    """Raise `UsageError` if a function captures something that another process can't recognize.

    FA4 hashes the source of the function and the `repr` of what its closure and its defaults hold. A tensor's `repr` is
    not its content, and that of an object with an address differs in each process.
    """
    function = getattr(function, "__wrapped__", function)
    if not callable(function):
        raise UsageError(f"`{reference}` is a {type(function).__name__}, no function")
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    for name, cell in zip(names, getattr(function, "__closure__", None) or (), strict=True):
        try:
            _require(reference, name, cell.cell_contents)
        except ValueError:
            raise UsageError(f"`{reference}` captures `{name}`, which has no value yet") from None
    for position, value in enumerate(getattr(function, "__defaults__", None) or ()):
        _require(reference, f"default {position}", value)
    for name, value in (getattr(function, "__kwdefaults__", None) or {}).items():
        _require(reference, name, value)


def _require(reference: str, name: str, value: object) -> None:
    if isinstance(value, _PLAIN):
        return
    if isinstance(value, (tuple, list, frozenset)):
        for item in value:
            _require(reference, name, item)
        return
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if _ADDRESS.search(repr(value)) or hasattr(value, "data_ptr") or hasattr(value, "fileno"):
        raise UsageError(
            f"`{reference}` captures `{name}`, a {kind}, which can't be recognized in another process",
            "capture numbers and strings; pass tensors as `aux_tensors`",
        )

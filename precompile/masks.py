"""Finding a `mask_mod` or `score_mod` by its name."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..cache.toolchain import package_folder
from ..errors import UsageError
from .identifiable import require_identifiable
from .variant import MODIFIERS, Variant


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

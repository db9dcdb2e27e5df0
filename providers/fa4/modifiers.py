"""Finding a `mask_mod` or `score_mod` by its name."""

from __future__ import annotations

import importlib
from typing import Any

from ...errors import UsageError
from .identifiable import require_identifiable


def find_modifier(reference: str, package: str) -> Any:
    """Return the function that `module:attribute` names; `package` is FA4's.

    Raises `UsageError` if it can't be imported, or if FA4's hash does not tell all that it does.
    """
    module, _, attribute = reference.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:  # a script ends when it is imported
        hint = "it must be installed where the kernels are built and where they are used, or be on PYTHONPATH"
        raise UsageError(f"`{reference}` can't be imported: {type(error).__name__}: {error}", hint) from None
    require_identifiable(reference, found, package)
    return found

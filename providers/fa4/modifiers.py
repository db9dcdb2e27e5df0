"""Finding a `mask_mod` or `score_mod` by its name."""

from __future__ import annotations

import importlib
import traceback
from typing import Any

from ...errors import UsageError
from .recognizer import FlashRecognizer, require_identifiable

_OF_IMPORTS = (importlib.__file__, "<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>")


def find_modifier(reference: str, recognizer: FlashRecognizer) -> Any:
    """Return the function that `module:attribute` names.

    Raises `UsageError` if it can't be imported, or recognized in another process.
    """
    found = find_function(reference)
    if not callable(found):
        kind = type(found).__qualname__
        raise UsageError(f"`{reference}` is {'an' if kind[0] in 'aeiou' else 'a'} {kind}, not a function")
    require_identifiable(reference, found, recognizer)
    return found


def find_function(reference: str) -> Any:
    """Return what `module:attribute` names. Raises `UsageError` if it can't be imported, with the place."""
    module, _, attribute = reference.partition(":")
    hint = "it must be installed where the kernels are built and where they are used, or be on PYTHONPATH"
    try:
        found: Any = importlib.import_module(module)
        hint = f"name what `{module}` has, as `module:attribute`"
        for part in attribute.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:  # a script ends when it is imported
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename not in _OF_IMPORTS]
        where = f" ({frames[-1].filename}:{frames[-1].lineno})" if len(frames) > 1 else ""
        raise UsageError(f"`{reference}` can't be imported: {type(error).__name__}: {error}{where}", hint) from None
    return found

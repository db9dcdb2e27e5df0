"""The source of the functions that a spec names: it means another thing when one of them has changed."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable
from pathlib import Path

from ...providers.call import Variant
from ...providers.packages import package_folder


def function_sources(variants: Iterable[Variant]) -> dict[str, str]:
    """Return the SHA-256 of each module that a function of the variants is in; imports none of them."""
    references = {reference for variant in variants for reference in variant.functions}
    found = {}
    for module in sorted({reference.partition(":")[0] for reference in references}):
        *parents, name = module.split(".")
        folder = package_folder(".".join(parents)) if parents else None
        path = folder / f"{name}.py" if folder else None
        if path is None and (spec := importlib.util.find_spec(name) if not parents else None):
            path = Path(spec.origin) if spec.origin else None
        found[module] = hashlib.sha256(path.read_bytes()).hexdigest() if path and path.is_file() else "not found"
    return found

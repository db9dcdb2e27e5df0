"""The functions that the DSL rewrites before it traces them: once for all kernels instead of once for each.

The first time that the DSL comes by a function that is marked as `jit` or `kernel`, it parses it and puts other code in
its place. That takes 0.4 s a kernel, and comes to the same in each process. So what one child has had rewritten, its
parent has rewritten as well, by the DSL.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

Rewritten = tuple[str, str]
"""Module and qualified name of a function."""

_REWRITE = "run_preprocessor"
_PREPARE = "_preprocess_and_replace_code"


class Rewriting:
    """Takes note of what the DSL rewrites in this process, and has it rewritten in another.

    Does nothing for a DSL in which the two methods are not found.
    """

    def __init__(self, dsl_class: Any) -> None:
        self._prepare = getattr(dsl_class, _PREPARE, None)
        self._functions: list[Rewritten] = []
        rewrite = getattr(dsl_class, _REWRITE, None)
        if rewrite is None:
            return

        @functools.wraps(rewrite)
        def noted(dsl: object, function: Any, *arguments: Any, **options: Any) -> Any:
            self._functions.append((function.__module__, function.__qualname__))
            return rewrite(dsl, function, *arguments, **options)

        setattr(dsl_class, _REWRITE, noted)

    def done(self) -> list[Rewritten]:
        """Return what was rewritten since the process was forked."""
        return list(self._functions)

    def repeat(self, functions: Sequence[Rewritten]) -> None:
        """Have functions rewritten. One that is not to be found here by its name (a closure's) is left to others."""
        for module, name in functions:
            function = _find(module, name)
            if function is not None and self._prepare is not None:
                with suppress(Exception):  # a child that needs it does it, or says why it fails
                    self._prepare(function)
        self._functions.clear()


def _find(module: str, name: str) -> Any:
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if isinstance(found, property):
        found = found.fget
    while hasattr(found, "__wrapped__"):
        found = found.__wrapped__
    return found

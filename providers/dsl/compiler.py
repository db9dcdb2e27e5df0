"""Standing in for the DSL's compiler, and the place by which all that it compiles passes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

CODE_MAKER = "cutlass.base_dsl.dsl", "BaseDSL", "generate_mlir"
"""Module, class and method that every compile comes by: `cute.compile`, with options or without, and the call of a
function that is marked as `jit`."""

CUTE = "cutlass.cute"
"""The module whose `compile` providers call."""


def keywords(compiled: Any) -> dict[str, bool]:
    """Return the names by which a compiled function takes its arguments, in order: whether one must be given.

    One that must not is None where it is left out. Empty if the function takes arguments by position only.
    """
    wrapper = getattr(compiled, "_kwargs_wrapper", None)
    if wrapper is None:
        return {}
    return {one.name: one.default is not None for one in inspect.signature(wrapper).parameters.values()}


class Compiler:
    """Stands in for `cute.compile`, which is called, and may be indexed with options first.

    `function` gets the real one, and what it was called with.
    """

    def __init__(self, real: Any, function: Callable[..., Any]) -> None:
        self._real = real
        self._function = function

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Compile, as far as `function` does."""
        return self._function(self._real, *arguments, **options)

    def __getitem__(self, options: Any) -> Compiler:
        return Compiler(self._real[options], self._function)


@contextmanager
def compiler_replaced(cute: Any, function: Callable[..., Any]) -> Iterator[None]:
    """Put a `Compiler` in the place of `cute.compile`, until the block ends."""
    real = cute.compile
    cute.compile = Compiler(real, function)
    try:
        yield
    finally:
        cute.compile = real

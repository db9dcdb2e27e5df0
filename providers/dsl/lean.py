"""Tracing without what the DSL does around each operation for its debugging modes: the same bytes in less time.

All functions that the DSL marks as `dsl_user_op` share one wrapper, which looks for source locations, for values of
its other frontend and for transformations that a kernel's compile has not asked for, 40,000 times a kernel. Where
its source is one that was read, and only there, `lean` puts a wrapper in its place that goes straight to the operation,
and back to the DSL's own if a compile asks for locations. One that asks for the other frontend raises, to be made
without. That the bytes are the same is tested against what FA4 compiles itself.
"""

from __future__ import annotations

import gc
import hashlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from types import FunctionType, ModuleType
from typing import Any

MODULE = "cutlass._mlir_helpers.op"
_MARK = "dsl_user_op"
_OTHER_FRONTEND = "enable_pyir"

# The SHA-256 of the source of `dsl_user_op`, of releases where the wrapper below was seen to do the same.
_READ = frozenset(("c1a40c655cf8df49ed931186df23f8a60e9713d0dc8129782579585ee22141cf",))  # 4.8.0, 4.8.1


class Lean:
    """The DSL's wrappers in this process.

    `is_known` says whether they are what was read; if not, nothing is changed. `dsl_class` is what the DSL's other
    frontend is asked of.
    """

    def __init__(self, module: ModuleType | None, dsl_class: Any) -> None:
        self._dsl_class = dsl_class
        mark: Any = getattr(module, _MARK, None)
        self.is_known = source_digest(mark) in _READ
        self._codes = [code for code in mark.__code__.co_consts if inspect.iscode(code)] if self.is_known else []
        self._wrappers: list[Any] = []

    def find_wrappers(self) -> None:
        """Find the wrappers of all operations that are there now. Call it before `gc.freeze`, which hides them."""
        every = (one for one in gc.get_objects() if type(one) is FunctionType) if self.is_known else ()
        self._wrappers = [one for one in every if one.__code__ in self._codes]

    @contextmanager
    def tracing(self) -> Iterator[None]:
        """Trace lean until the block ends. Raises `OtherFrontend` in it where the DSL's other frontend is asked for."""
        own = [wrapper.__code__ for wrapper in self._wrappers]
        frontend = vars(self._dsl_class).get(_OTHER_FRONTEND) if self._wrappers else None
        for wrapper in self._wrappers:
            # Under the name of the DSL's file, as the DSL looks for the first frame that is not its own.
            wrapper.__code__ = _LEAN.replace(co_filename=wrapper.__code__.co_filename)
        if frontend is not None:
            setattr(self._dsl_class, _OTHER_FRONTEND, _refuse)
        try:
            yield
        finally:
            if frontend is not None:
                setattr(self._dsl_class, _OTHER_FRONTEND, frontend)
            for wrapper, code in zip(self._wrappers, own, strict=True):
                wrapper.__code__ = code


class OtherFrontend(Exception):
    """A compile asks for the DSL's other frontend, whose values the lean wrapper passes by."""


def _refuse(*_: object) -> None:
    raise OtherFrontend


def source_digest(function: Any) -> str:
    """Return the SHA-256 of a function's source, empty if there is none to read."""
    try:
        return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()
    except (OSError, TypeError):
        return ""


def _lean(opFunc: Any) -> Any:  # noqa: N803  # a function's code can replace another's if their closures are alike
    # It runs in the DSL's module, where these names are: the DSL's flags, and what makes its own wrapper.
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if _ENABLE_FRAME_FILTERING or _LOC_TRANSFORMS.get():  # type: ignore[name-defined]  # noqa: F821  # the DSL's
            return dsl_user_op(opFunc)(*args, **kwargs)  # type: ignore[name-defined]  # noqa: F821  # the DSL's
        kwargs.setdefault("loc", None)
        return opFunc(*args, **kwargs)

    return wrapper


_LEAN = _lean(None).__code__

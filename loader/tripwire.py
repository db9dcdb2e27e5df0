"""Strict mode's second half: whatever compiles through the DSL, by whatever path, raises."""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

from ..errors import CompileForbidden, MachineError
from ..providers.dsl.compiler import CODE_MAKER
from ..providers.loaded import is_executing

MODULE, _CLASS, _METHOD = CODE_MAKER

_STACK_DEPTH = 8


class Tripwire:
    """Replaces the method of the DSL that makes code, until `remove`."""

    def __init__(self, forbidden: Callable[[CompileForbidden], None]) -> None:
        self._forbidden = forbidden
        self._original: tuple[Any, Any] | None = None

    def set(self, module: ModuleType) -> None:
        """Set it in the DSL's module. Raises `MachineError` if the DSL has no such method."""
        if self._original is not None:
            return
        cls, original = _code_maker(module)

        @functools.wraps(original)
        def refuse(_dsl: object, body: object, *_: object, **__: object) -> None:
            error = CompileForbidden(_name(body), traceback.format_list(_callers(module.__name__.split(".")[0])))
            self._forbidden(error)
            raise error

        self._original = cls, original
        setattr(cls, _METHOD, refuse)

    def remove(self) -> None:
        """Let the DSL compile again."""
        if self._original is not None:
            cls, original = self._original
            setattr(cls, _METHOD, original)
            self._original = None


def require_code_maker() -> None:
    """Raise `MachineError` if the DSL is in the process and has no such method."""
    if (module := sys.modules.get(MODULE)) is not None and not is_executing(module):
        _code_maker(module)


def _code_maker(module: ModuleType) -> tuple[Any, Any]:
    cls = getattr(module, _CLASS, None)
    method = getattr(cls, _METHOD, None)
    if method is None:
        raise MachineError(
            f"strict mode can't watch this release of the DSL: `{MODULE}.{_CLASS}.{_METHOD}` is not there",
            "use a release that fa4-precompile knows, or run with `on_miss` set to `warn`",
        )
    return cls, method


def _name(body: object) -> str:
    return f"{getattr(body, '__module__', '?')}.{getattr(body, '__qualname__', body)}"


def _callers(dsl: str) -> list[traceback.FrameSummary]:
    """Return the innermost frames that are neither the DSL's nor ours."""
    frames = [
        frame for frame in traceback.walk_stack(sys._getframe(1)) if not _is_of(frame[0].f_globals.get("__name__"), dsl)
    ]
    return list(traceback.StackSummary.extract(reversed(frames[:_STACK_DEPTH])))


def _is_of(module: object, dsl: str) -> bool:
    return module == __name__ or str(module).split(".")[0] == dsl

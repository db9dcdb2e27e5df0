"""What a call of a function was given besides what somebody knows. Standard library only."""

from __future__ import annotations

import dis
import inspect
from collections.abc import Container, Iterator, Mapping
from types import FrameType
from typing import Any

_PLAIN = (bool, int, float, str)


def arguments_of(frame: FrameType) -> tuple[str, ...]:
    """Return the names of the arguments of the function that a frame is a call of."""
    code = frame.f_code
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def given_besides(frame: FrameType, known: Container[str]) -> Iterator[str]:
    """Yield the arguments, of those that are not known, that a call does not have at their default.

    Of an argument that the function puts another value in the place of (a tile that it chooses), a number or word says
    nothing about the call.
    """
    others = [name for name in arguments_of(frame) if name not in known]
    if not others:
        return
    defaults = _defaults(frame)
    assigned = {one.argval for one in dis.get_instructions(frame.f_code) if one.opname.startswith("STORE_FAST")}
    for name in others:
        value = frame.f_locals.get(name)
        if value is None or value is False or (name in assigned and isinstance(value, _PLAIN)):
            continue
        default = defaults.get(name)
        if value is not default and not (isinstance(value, (*_PLAIN, tuple)) and value == default):
            yield name


def _defaults(frame: FrameType) -> Mapping[str, Any]:
    function: Any = frame.f_globals.get(frame.f_code.co_name)
    function = inspect.unwrap(function) if callable(function) else None
    if getattr(function, "__code__", None) is not frame.f_code:  # a method, or a function of a function
        return {}
    return {
        name: one.default
        for name, one in inspect.signature(function).parameters.items()
        if one.default is not inspect.Parameter.empty
    }

"""Keys that hold a tensor of one number: looking them up by the number. Imports no torch."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

from ..providers.packages import is_in


def by_value(key: object) -> object:
    """Return a key with each tensor that holds one number replaced by it; the key itself if there is none."""
    torch: Any = sys.modules.get("torch")
    return _number(torch, key) if torch is not None else key


def tensor_arguments(frame: FrameType | None, package: str) -> list[str]:
    """Return the arguments of a package's innermost function with arguments that are tensors of one number."""
    torch: Any = sys.modules["torch"]
    while frame is not None:
        if is_in(str(frame.f_globals.get("__name__", "")), package):
            arguments = frame.f_code.co_varnames[: frame.f_code.co_argcount + frame.f_code.co_kwonlyargcount]
            values = {name: frame.f_locals.get(name) for name in arguments}
            names = [name for name, value in values.items() if isinstance(value, torch.Tensor) and value.ndim == 0]
            if names:
                return names
        frame = frame.f_back
    return []


def _number(torch: Any, value: Any) -> Any:
    if isinstance(value, tuple):
        items = tuple(_number(torch, item) for item in value)
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    if not isinstance(value, torch.Tensor) or value.ndim != 0:
        return value
    if value.is_cuda and torch.cuda.is_current_stream_capturing():
        return value  # reading it would break the capture
    try:
        return value.item()
    except Exception:  # a tensor without a value, of a trace
        return value

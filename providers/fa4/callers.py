"""Callers: functions of the user's that make a call as their job does, by private entry points and keywords."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from ...errors import UsageError
from .arguments import CallBuilder
from .modifiers import find_function
from .variant import Variant

_NOT_TOLD = ("pass_", "shape", "caller", "arguments")
_KINDS_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Tensors:
    """What a caller makes its call of: tensors of the job's sizes and types, and no memory.

    Attributes:
        arguments: what FlashAttention's public function would be given for the same axes, by name: `q`, `k` and `v`;
            `mask_mod`, `block_sparse_tensors`, `aux_tensors` and others where the axes say so.
        dtype: torch's dtype of Q, K and V.
    """

    def __init__(self, torch: Any, arguments: Mapping[str, Any], backward: Callable[..., None]) -> None:
        self.arguments = dict(arguments)
        self.dtype = self.q.dtype
        self._torch = torch
        self._backward = backward

    @property
    def q(self) -> Any:
        """Q: (batch, seqlen_q, heads, head_dim), or (total_q, heads, head_dim) of packed sequences."""
        return self.arguments["q"]

    @property
    def k(self) -> Any:
        """K: (batch, seqlen_k, kv_heads, head_dim), or packed or in pages as the axes say."""
        return self.arguments["k"]

    @property
    def v(self) -> Any:
        """V: as K, of head_dim_v."""
        return self.arguments["v"]

    def empty(self, *size: int, dtype: Any = None) -> Any:
        """Return another tensor of the device; `dtype` is torch's, or its name, and that of Q unless it is given."""
        named = getattr(self._torch, dtype) if isinstance(dtype, str) else dtype
        return self._torch.empty(*size, dtype=named or self.dtype, device="cuda")

    def backward(self, out: Any, lse: Any = None) -> None:
        """Make the backward of the last call of a public function, with a gradient of `out`, and of `lse` if given.

        A caller can't leave it to torch, whose autograd needs a GPU.
        """
        self._backward(out, lse)


def find_caller(name: str) -> Callable[..., object]:
    """Return the function that `module:function` names. Raises `UsageError`."""
    found = find_function(name)
    if not inspect.isfunction(found):
        kind = type(found).__qualname__
        raise UsageError(f"caller `{name}` is of type `{kind}`, not a function of a module", "write a `def`")
    function: Callable[..., object] = found
    return function


def keywords(function: Callable[..., object], variant: Variant, builder: CallBuilder) -> dict[str, object]:
    """Return what a caller takes of axes, sizes and its arguments. Raises `UsageError` for one that it lacks."""
    told: dict[str, object] = {one.name: getattr(variant, one.name) for one in fields(variant)}
    told = {name: value for name, value in told.items() if name not in _NOT_TOLD} | variant.sizes
    told |= {"pass_": variant.pass_, **builder.functions(variant)}
    parameters = inspect.signature(function).parameters
    takes_all = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    names = {one.name for one in list(parameters.values())[2:] if one.kind in _KINDS_BY_NAME}
    names |= {one.name for one in parameters.values() if one.kind is inspect.Parameter.KEYWORD_ONLY}
    own = dict(variant.arguments)
    for name in own:
        if name not in names and not takes_all:
            raise UsageError(
                f"caller `{variant.caller}` takes no argument `{name}`",
                f"it is called as `{function.__name__}(interface, tensors, *, {', '.join(own)}, ...)`",
            )
    return {name: value for name, value in (told | own).items() if takes_all or name in names}


def fault_of(name: str, function: Callable[..., object], error: BaseException) -> UsageError:
    """Return the error of a caller that raised, with the lines of its own file on the way there."""
    file = function.__code__.co_filename
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    shown = "".join(traceback.format_list(frames)).rstrip()
    return UsageError(
        f"caller `{name}` raises {type(error).__name__}: {error}" + (f"\n{shown}" if shown else ""),
        f"it is called as `{function.__name__}(interface, tensors, *, ...)`: docs/how-to/callers.md",
    )

"""Whether FA4's hash of a `mask_mod` or `score_mod` tells all that it does; docs/decisions/0014 says why it must."""

from __future__ import annotations

import builtins
import dis
import inspect
from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

from ...errors import UsageError
from ..packages import is_in

_PLAIN = (type(None), bool, int, float, str, bytes)
# Builtins that lead to what no instruction names.
_WAYS_AROUND = ("__import__", "eval", "exec", "globals", "locals", "open", "vars")


def require_identifiable(name: str, function: Any, package: str) -> None:
    """Raise `UsageError` unless FA4's hash of a function tells all that the function does.

    FA4 hashes the text of a function, the `repr` of what its closure holds, one after another, and that of its
    defaults; `package` is FA4's. What the function reads from its module is in no hash: with another value FA4 would
    take the old kernel. What a toolchain pins is not of that kind, under its own name.
    """
    pinned = _Pinned(package)
    base = getattr(function, "__wrapped__", function)
    if not isinstance(function, FunctionType) or not isinstance(base, FunctionType):
        raise UsageError(f"`{name}` is {_a(type(function).__qualname__)}, not a function of a module")
    if base is not function and not (
        pinned.has(str(function.__globals__["__name__"])) and base is inspect.unwrap(function)
    ):
        raise _left_out(name, "is wrapped by a decorator", "decorate it with nothing but `cute.jit`")
    if base.__name__ == "<lambda>":
        reason = "FlashAttention's hash can't tell it from another one in the same statement"
        raise UsageError(f"`{name}` is a lambda: {reason}", "write a `def`")
    try:
        inspect.getsource(base)
    except (OSError, TypeError):
        reason = "FlashAttention's hash leaves out the constants of such a function"
        raise UsageError(f"`{name}` has no source text: {reason}", "define it in a file") from None
    _require_captured(name, base, pinned)
    for read in _unpinned(base.__code__, base.__globals__, pinned):
        hint = "capture numbers in a closure or as defaults; write out what a helper does; import under the own name"
        raise _left_out(name, f"reads `{read}` of its module", hint)


def _require_captured(name: str, function: FunctionType, pinned: _Pinned) -> None:
    captured = function.__code__.co_freevars
    if len(captured) > 1:
        words = ", ".join(f"`{one}`" for one in captured)
        reason = "FlashAttention's hash joins their texts, so that 1 and 28 are as 12 and 8"
        raise UsageError(f"`{name}` captures {words}: {reason}", "capture them in one tuple, or as defaults")
    for one, cell in zip(captured, function.__closure__ or (), strict=True):
        try:
            _require_plain(name, one, cell.cell_contents, pinned)
        except ValueError:
            raise UsageError(f"`{name}` captures `{one}`, which has no value yet") from None
    for position, value in enumerate(function.__defaults__ or ()):
        _require_plain(name, f"default {position}", value, pinned)
    for argument, value in (function.__kwdefaults__ or {}).items():
        _require_plain(name, argument, value, pinned)


class _Pinned:
    """The packages whose code can't change without the toolchain's identity, or that have nothing to change.

    `flash_attn.cute` is what the masks of this package read, whichever package of FA4's lineage is the provider.
    """

    def __init__(self, package: str) -> None:
        self._packages = "builtins", "cutlass", "flash_attn.cute", "math", "quack", package

    def has(self, module: str) -> bool:
        """Return whether a module is in one of them."""
        return any(is_in(module, package) for package in self._packages)

    def holds(self, value: Any) -> bool:
        """Return whether a module, function or class is from one of them. Anything else could change."""
        if isinstance(value, ModuleType):
            return self.has(value.__name__)
        return isinstance(value, (type, FunctionType, BuiltinFunctionType)) and self.has(str(value.__module__))


def _unpinned(code: CodeType, variables: Mapping[str, Any], pinned: _Pinned) -> Iterator[str]:
    """Yield the names that a function and those inside it read from outside, and that the hash does not tell."""
    instructions = list(dis.get_instructions(code))
    for position, instruction in enumerate(instructions):
        name = instruction.argval
        if instruction.opname == "IMPORT_NAME":
            is_relative = instructions[position - 2].argval != 0  # the level is pushed before the names
            if is_relative or not pinned.has(name):
                yield name
        elif instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            value = variables.get(name, vars(builtins).get(name))
            own_name = str(getattr(value, "__name__", "")).rpartition(".")[2] == name
            if not own_name or not pinned.holds(value) or name in _WAYS_AROUND:
                yield name
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _unpinned(constant, variables, pinned)


def _require_plain(name: str, captured: str, value: object, pinned: _Pinned) -> None:
    if type(value) in (tuple, list):
        for item in value:  # type: ignore[attr-defined]
            _require_plain(name, captured, item, pinned)
    elif type(value) not in _PLAIN and not (isinstance(value, type) and pinned.holds(value)):
        kind = _a(f"{type(value).__module__}.{type(value).__qualname__}")
        raise UsageError(
            f"`{name}` captures `{captured}`, {kind}, which can't be recognized in another process",
            "capture numbers and strings, and tuples of them; pass tensors as `aux_tensors`",
        )


def _left_out(name: str, what: str, hint: str) -> UsageError:
    reason = "FlashAttention's hash of the function leaves out: a kernel of another one would be taken for it"
    return UsageError(f"`{name}` {what}, which {reason}", hint)


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"

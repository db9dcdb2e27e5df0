"""What axes say of arguments that are no plain numbers: functions by their names, block masks, auxiliary tensors.

`observed.py` reads calls by it. Imports neither torch nor FA4.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from .variant import SIZES, AuxTensor, Sparse

_DESCALES = ("q", "k", "v", "qk", "qv", "kv", "qkv")
_SCALARS = ((int, "int"), (float, "float"))
# Where the sizes of a call most often stand in a tensor: which of two equal sizes is meant can't be told otherwise.
_FIRST, _SECOND = ("batch",), ("heads", "kv_heads")
_LAST = ("seqlen_q", "seqlen_k", "total_q", "total_k")


def reference_of(function: object) -> str | None:
    """Return the name of a function as `module:attribute`; None if it is not to be found by one in other processes."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__":
        return None
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}:{name}" if found is function else _by_variable(module, function)


def _by_variable(module: str, function: object) -> str | None:
    """Return the name of a function that its module has under another name than its own: one that was made."""
    names = vars(sys.modules.get(module, object)) if module in sys.modules else {}
    found = [name for name, value in list(names.items()) if value is function and not name.startswith("__")]
    return f"{module}:{found[0]}" if found else None


def descales(arguments: Mapping[str, Any]) -> str | None:
    """Return which of Q, K and V have a scale; None for none."""
    given = "".join(name for name in "qkv" if arguments.get(f"{name}_descale") is not None)
    return given if given in _DESCALES else None


def scalars(values: Any) -> tuple[str, ...] | None:
    """Return the kinds of scalars; None for none. Raises `LookupError` for one that no axis says."""
    if not values:
        return None
    kinds = []
    for value in values:
        kind = next((word for one, word in _SCALARS if type(value) is one), None)
        if kind is None:
            raise LookupError(f"aux_scalars of type {type(value).__name__}")
        kinds.append(kind)
    return tuple(kinds)


def aux_tensors(tensors: Any, sizes: Mapping[str, int]) -> tuple[AuxTensor, ...] | None:
    """Return auxiliary tensors as an axis says them, sizes by their names where they have one; None for none."""
    return tuple(_aux_tensor(tensor, sizes) for tensor in tensors) if tensors else None


def _aux_tensor(tensor: Any, sizes: Mapping[str, int]) -> AuxTensor:
    shape = [int(size) for size in tensor.shape]
    shared = tuple(
        at for at, (size, stride) in enumerate(zip(shape, tensor.stride(), strict=True)) if size > 1 > stride
    )
    named = tuple(_size(shape, at, sizes) for at in range(len(shape)))
    return AuxTensor(str(tensor.dtype).removeprefix("torch."), named, shared)


def _size(shape: Sequence[int], at: int, sizes: Mapping[str, int]) -> int | str:
    likely = (*(_FIRST if at == 0 else ()), *(_SECOND if at == 1 else ()), *(_LAST if at == len(shape) - 1 else ()))
    names = likely if len(shape) > 1 else (*likely, *SIZES)
    return next((name for name in names if sizes[name] == shape[at] and shape[at] > 1), shape[at])


def sparse(blocks: Any, heads: int, backward: Any = None) -> Sparse | None:
    """Return a block mask as an axis says it; `backward` is that of the backward, where it has its own."""
    if blocks is None:
        return None
    counts = blocks.mask_block_cnt
    packed = getattr(blocks, "cu_total_m_blocks", None) is not None  # then there is one row of blocks for each head
    q_block, kv_block = blocks.block_size
    own = getattr(backward, "block_size", None) or blocks.block_size
    has_order = backward if backward is not None else blocks
    return Sparse(
        q_block,
        kv_block,
        batch="shared" if packed or counts.shape[0] == 1 else "each",
        heads="each" if counts.shape[0 if packed else 1] == heads > 1 else "shared",
        full_blocks=blocks.full_block_cnt is not None,
        descending=bool(getattr(has_order, "spt", None)),
        bwd_q_block=own[0] if own[0] != q_block else None,
        bwd_kv_block=own[1] if own[1] != kv_block else None,
    )

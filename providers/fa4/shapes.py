"""The sizes of a call: as a spec says them, and those that `shapes: closure` leaves open."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from ...errors import UsageError
from ...text.yaml_source import Value
from ..axes import count, one_or_list, product_of
from ..call import Range
from .variant import SHAPE_SIZES, Shape, Variant

MOST_ELEMENTS = 2**40
"""Torch counts bytes in 64 bits, also those of a tensor that has no memory."""

_MOST = 2**31 - 1
_RANGE = re.compile(r"([0-9]+)\.\.([0-9]+)")

# What is open if a spec names nothing: a token of one sequence up to a long context, a model's share of a GPU up to
# all of it. More sequences than that are other kernels to a packed call, which few jobs reach.
_BATCH = 1, 256
_SEQLEN = 1, 131072
_HEADS = 128

_OpenSize = tuple[int, int]


def read_shapes(value: Value) -> list[Shape]:
    """Read a mapping of sizes to numbers, ranges, and lists of them. Raises `SpecError`."""
    inner = value.mapping(SHAPE_SIZES, "`shape`")
    found = {name: one_or_list(name, _size, item) for name, item in inner.items()}
    return [_shape(one) for one in product_of(value, found)]


def _size(value: Value) -> int | _OpenSize:
    found = None if value.is_list or value.is_mapping else value.scalar()
    if not isinstance(found, str) or ".." not in found:
        return count("size", 1, _MOST)(value)
    match = _RANGE.fullmatch(found)
    low, high = map(int, match.groups()) if match and len(found) < 30 else (0, 0)
    if 1 <= low <= high <= _MOST:
        return low, high
    raise value.error(f"{value.kind} is no range of sizes", f"allowed: `1..4096`, from 1 to {_MOST}, the lower first")


def _shape(sizes: Mapping[str, object]) -> Shape:
    open_sizes = {name: size for name, size in sizes.items() if isinstance(size, tuple)}
    fixed: dict[str, int] = {name: size for name, size in sizes.items() if isinstance(size, int)}
    ranges = tuple((name, *size) for name, size in open_sizes.items())
    return replace(Shape(**fixed), ranges=ranges, named=frozenset(sizes))  # type: ignore[arg-type]


def opened(variant: Variant) -> Variant:
    """Return a variant with all sizes open that its spec does not fix, which stands where they are most ordinary.

    Raises `UsageError` for heads of which none is a multiple of `qheads_per_kvhead`, and for sizes that no call has.
    """
    shape, ratio = variant.shape, variant.qheads_per_kvhead
    named = {name: (low, high) for name, low, high in shape.ranges}
    defaults = {"seqlen_q": _SEQLEN, "seqlen_k": _SEQLEN, "batch": _BATCH, "heads": (ratio, max(ratio, _HEADS))}
    limits = {name: named.get(name, default) for name, default in defaults.items()}
    left = {name: limits[name] for name in limits if name in named or name not in shape.named}
    if "heads" in left:
        low, high = left["heads"]
        left["heads"] = -(-low // ratio) * ratio, high // ratio * ratio
        if left["heads"][0] > left["heads"][1]:
            message = f"none of the heads in {low}..{high} is a multiple of qheads_per_kvhead {ratio}"
            raise UsageError(message, "give a range that holds one", "shape")
    sizes = _sizes(variant)
    ordinary = {name: max(low, min(high, sizes[name])) for name, (low, high) in left.items()}
    open_sizes = tuple((name, *left[name]) for name in left)
    found = _at(variant, ordinary, open_sizes)
    if _elements(found) > MOST_ELEMENTS:  # the smallest may do
        return _at(variant, {name: low for name, (low, _) in left.items()}, open_sizes)
    return found


def ranges(variant: Variant) -> dict[str, Range]:
    """Return the sizes that are open."""
    sizes, steps = _sizes(variant), {"heads": variant.qheads_per_kvhead}
    return {name: Range(low, high, sizes[name], steps.get(name, 1)) for name, low, high in variant.shape.ranges}


def sized(variant: Variant, sizes: Mapping[str, int]) -> Variant:
    """Return the call at some sizes. Raises `UsageError` for a tensor that is too large."""
    chosen = {**_sizes(variant), **sizes}
    heads = None if chosen["heads"] == variant.ordinary_heads else chosen["heads"]  # one call is to have one text
    call = replace(variant, shape=Shape(chosen["batch"], heads, chosen["seqlen_q"], chosen["seqlen_k"]))
    require_possible(call)
    return call


def require_possible(variant: Variant) -> None:
    """Raise `UsageError` for a tensor that is too large."""
    elements = _elements(variant)
    if elements > MOST_ELEMENTS:
        message = f"a tensor of this `shape` would have {elements:.1e} elements"
        raise UsageError(message, "give sizes that a GPU can hold", "shape")


def _sizes(variant: Variant) -> dict[str, int]:
    return {name: getattr(variant.shape, name) for name in SHAPE_SIZES} | {"heads": variant.heads}


def _at(variant: Variant, sizes: Mapping[str, int], open_sizes: tuple[tuple[str, int, int], ...]) -> Variant:
    chosen = {**_sizes(variant), **sizes}
    shape = Shape(chosen["batch"], chosen["heads"], chosen["seqlen_q"], chosen["seqlen_k"], open_sizes)
    return replace(variant, shape=shape)


def _elements(variant: Variant) -> int:
    shape = variant.shape
    rows = shape.batch * max(shape.seqlen_q, shape.seqlen_k)
    return rows * variant.heads * max(variant.head_dim, variant.head_dim_v)

"""The axes of FlashAttention-4: what each is called, what it takes, what it is if a spec is silent."""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from types import MappingProxyType

from ...errors import UsageError
from ...text.yaml_source import Value, hint_for
from ..axes import Axis, auto_or, choice, count, flag, none_or, one_or_list, pair, product_of, reference, sides
from .shapes import MOST_ELEMENTS, opened, read_shapes, require_possible
from .switches import PINNED, PREFIXES
from .variant import CLOSURE, SIZES, AuxTensor, Shape, Sparse, Variant

PASSES = ("fwd", "bwd")
_AUX_DTYPES = ("bool", "int8", "uint8", "int32", "int64", "bfloat16", "float16", "float32")

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_dim = count("head_dim", 1, 1024)


def _head_dim(value: Value) -> object:
    if not value.is_list:
        dim = _dim(value)
        return dim, dim
    dims = [_dim(item) for item in value.items("`head_dim`")]
    if len(dims) != 2:
        raise value.error("a head_dim is one number, or a pair [head_dim of Q and K, head_dim of V]")
    return dims[0], dims[1]


def _window(value: Value) -> object:
    if not value.is_list and value.scalar() is None:
        return None
    if not value.is_list or len(items := value.items("`window`")) != 2:
        hint = (
            "allowed: null, or a pair [left, right] inside a list of values: `window: [[1023, 0]]`; null is unbounded"
        )
        raise value.error(f"`window` can't be {value.kind}", hint)
    side = count("window", 0, 2**31 - 1)
    left, right = (None if not item.is_list and item.scalar() is None else side(item) for item in items)
    if left is None and right is None:
        raise value.error("a window that is unbounded on both sides is no window", "write `window: null`")
    return left, right


def _softcap(value: Value) -> object:
    found = value.scalar()
    if isinstance(found, (int, float)) and not isinstance(found, bool) and 0 < found < float("inf"):
        return found  # 15 and 15.0 are two kernels to FA4
    raise value.error(f"`softcap` can't be {value.kind}", "allowed: null, a positive number")


def _aux_tensors(value: Value) -> object:
    items = value.items("`aux_tensors`") if value.is_list else [value]
    return tuple(_aux_tensor(item) for item in items)


def _aux_tensor(value: Value) -> AuxTensor:
    inner = value.mapping(("dtype", "shape", "shared"), "a tensor of `aux_tensors`")
    if "dtype" not in inner or "shape" not in inner:
        raise value.error("a tensor of `aux_tensors` needs `dtype` and `shape`")
    size = count("size", 1, 2**31 - 1)
    shape: list[int | str] = []
    for item in inner["shape"].items("`shape` of a tensor"):
        found = item.scalar()
        if isinstance(found, str) and found not in SIZES:
            raise item.error(f"`{found}` is no size of a call", hint_for(found, SIZES))
        shape.append(found if isinstance(found, str) else size(item))
    if math.prod(one for one in shape if isinstance(one, int)) > MOST_ELEMENTS:
        raise inner["shape"].error("a tensor of this shape has more elements than a GPU can hold")
    dtype = choice("dtype", *_AUX_DTYPES)(inner["dtype"])
    position = count("position", 0, len(shape) - 1)
    shared = [position(item) for item in inner["shared"].items("`shared`")] if "shared" in inner else []
    return AuxTensor(str(dtype), tuple(shape), tuple(sorted(set(shared))))


def _aux_scalars(value: Value) -> object:
    items = value.items("`aux_scalars`") if value.is_list else [value]
    return tuple(str(choice("aux_scalars", "int", "float")(item)) for item in items)


def _job_env(value: Value) -> object:
    found = []
    for name, item in value.mapping(None, "`job_env`").items():
        setting = item.scalar()
        if setting is None or isinstance(setting, bool):
            raise item.error(f"`{name}` can't be {item.kind}", "write the variable's text: a number or a word")
        if not _VARIABLE.fullmatch(name):
            raise item.error(f"`{name}` is no name of a variable", "write letters, digits and `_`")
        if not name.startswith(PREFIXES):
            hint = f"allowed: variables that begin with {', '.join(PREFIXES)}"
            raise item.error(f"`{name}` is no variable of the provider's", hint)
        if name in PINNED:
            raise item.error(f"`{name}` is what the target says", "name another target")
        found.append((name, str(setting)))
    return tuple(sorted(found))


def _arguments(value: Value) -> list[object]:
    inner = value.mapping(None, "`arguments`")
    for name, item in inner.items():
        if not name.isidentifier() or keyword.iskeyword(name):
            raise item.error(f"`{name}` is no name of an argument", "write letters, digits and `_`")
        if name in TOLD:
            raise item.error(f"`{name}` is told to every caller", "say it as the axis of that name, or in `shape`")
    values = {name: one_or_list(name, _argument, inner[name]) for name in sorted(inner)}
    return [tuple(one.items()) for one in product_of(value, values)]


def _argument(value: Value) -> object:
    if value.is_list:
        return tuple(map(_argument, value.items("an argument's value")))
    found = value.scalar()
    if isinstance(found, float) and not math.isfinite(found):
        raise value.error(f"an argument can't be {value.kind}", "allowed: finite numbers, words, booleans, null")
    return found


def _return_lse(value: Value) -> object:
    found = value.scalar()
    if isinstance(found, bool) or found == "grad":
        return found
    raise value.error(f"`return_lse` can't be {value.kind}", "allowed: false, true, grad")


def _sparse(value: Value) -> object:
    if not value.is_mapping:
        if not value.is_list and value.scalar() is None:
            return None
        raise value.error(f"`sparse` can't be {value.kind}", "allowed: null, {q_block: ROWS, kv_block: ROWS}")
    inner = value.mapping([field.name for field in fields(Sparse)], "`sparse`")
    for name in ("q_block", "kv_block"):
        if name not in inner:
            raise value.error(f"`sparse` has no `{name}`", "it takes {q_block: ROWS, kv_block: ROWS}")
    rows = count("rows of a sparse block", 1, 65536)
    parsers: dict[str, Callable[[Value], object]] = {
        "q_block": rows,
        "kv_block": rows,
        "batch": choice("batch", "shared", "each"),
        "heads": choice("heads", "shared", "each"),
        "full_blocks": flag("full_blocks"),
        "descending": flag("descending"),
        "bwd_q_block": rows,
        "bwd_kv_block": rows,
        "computed": choice("computed", False, "exact", "sampled"),
    }
    return Sparse(**{name: parsers[name](item) for name, item in inner.items()})  # type: ignore[arg-type]


TOLD = (*(field.name.rstrip("_") for field in fields(Variant)), *SIZES)
"""What a caller is given by keyword besides its `arguments`, if it takes it. `pass`, a word of Python, is `pass_`."""

AXES: Mapping[str, Axis] = MappingProxyType(
    {
        axis.name: axis
        for axis in (
            Axis("pass", choice("pass", *PASSES), ...),
            Axis("dtype", choice("dtype", "bf16", "fp16", "fp8_e4m3", "fp8_e5m2"), ...),
            Axis("head_dim", _head_dim, ...),
            Axis("causal", flag("causal"), False),
            Axis("window", _window, None),
            Axis("qheads_per_kvhead", count("qheads_per_kvhead", 1, 1024), 1),
            Axis("varlen", sides("varlen"), False),
            Axis(
                "tile", auto_or(pair("tile", "a pair [rows, columns]", count("tile", 1, 1024))), None, per_pass=PASSES
            ),
            Axis("cluster_size", auto_or(count("cluster_size", 1, 16)), None, per_pass=PASSES),
            Axis("sparse", _sparse, None),
            Axis("backend", auto_or(choice("backend", "auto", "dedicated", "generic")), None, per_pass=PASSES),
            Axis("deterministic", flag("deterministic"), False),
            Axis("return_lse", _return_lse, False),
            Axis("max_seqlen", choice("max_seqlen", "given", "omitted"), "given"),
            Axis("softcap", none_or(_softcap), None),
            Axis("sink", choice("sink", None, "bf16", "fp16", "fp32"), None),
            Axis("descale", choice("descale", None, "q", "k", "v", "qk", "qv", "kv", "qkv"), None),
            Axis("pack_gqa", auto_or(flag("pack_gqa")), None),
            Axis("seqused", sides("seqused"), False),
            Axis("paged_kv", none_or(count("paged_kv", 1, 65536)), None),
            Axis("num_splits", count("num_splits", 0, 256), 1),
            Axis("seqlen_k_per_split", none_or(count("seqlen_k_per_split", 1, 2**31 - 1)), None),
            Axis("scheduler_metadata", choice("scheduler_metadata", "auto", "given", "off"), "auto"),
            Axis("mask_mod", none_or(reference("mask_mod")), None),
            Axis("score_mod", none_or(reference("score_mod")), None),
            Axis("score_mod_bwd", none_or(reference("score_mod_bwd")), None),
            Axis("aux_tensors", none_or(_aux_tensors), None),
            Axis("aux_scalars", none_or(_aux_scalars), None),
            Axis("qv", choice("qv", False, "with-q", "alone"), False),
            Axis("gather_kv", none_or(count("gather_kv", 1, 2**20)), None),
            Axis("gather_bwd", choice("gather_bwd", "saved-p", "recomputed-p"), "saved-p"),
            Axis("job_env", _job_env, ()),
            Axis("shape", read_shapes, Shape(), is_spread=True),
            Axis("shapes", choice("shapes", "listed", CLOSURE), "listed"),
            Axis("caller", none_or(reference("caller")), None),
            Axis("arguments", _arguments, (), is_spread=True),
        )
    }
)


_DEFAULTS: Mapping[str, object] = MappingProxyType({name: axis.default for name, axis in AXES.items()})


def make_variant(point: Mapping[str, object]) -> Variant:
    """Return the variant of one value an axis. Raises `UsageError` for one that no call can be made of."""
    values = dict(point) if len(point) == len(AXES) else {**_DEFAULTS, **point}  # a spec's points are whole
    dims, shapes = values.pop("head_dim"), values.pop("shapes")
    assert isinstance(dims, tuple)
    variant = Variant(pass_=values.pop("pass"), head_dim=dims[0], head_dim_v=dims[1], **values)  # type: ignore[arg-type]
    if variant.heads % variant.qheads_per_kvhead:
        ratio = variant.qheads_per_kvhead
        raise UsageError(f"{variant.heads} heads are no multiple of qheads_per_kvhead {ratio}")
    if shapes == CLOSURE:
        variant = opened(variant)
    elif variant.shape.ranges:
        message = "`shape` has a range, and the entry does not say `shapes: closure`"
        raise UsageError(message, "say it, or list the sizes: `seqlen_q: [1, 4096]`", "shape")
    require_possible(variant)
    if variant.arguments and variant.caller is None:
        raise UsageError("`arguments` are what a caller is given, and there is none", "add `caller: module:function`")
    if variant.sparse is not None and variant.sparse.computed and variant.mask_mod is None:
        raise UsageError(
            "a mask that is `computed` is computed from a `mask_mod`, and there is none",
            "add `mask_mod: module:attribute`, or take `computed` out",
        )
    return variant

"""The axes of a spec: what each is called, what it takes, what it is if a spec is silent.

Only what can't be meant at all is refused here (a negative head_dim, a window of one number). Whether a combination is
supported is asked of the provider.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, fields

from .variant import SIZES, AuxTensor, Shape, Sparse, Variant
from .yaml_source import Value, hint_for

PASSES = ("fwd", "bwd")
_AUTO = "auto"
_REFERENCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_AUX_DTYPES = ("bool", "int8", "uint8", "int32", "int64", "bfloat16", "float16", "float32")
_JOB_VARIABLES = ("FA_", "FLASH_ATTENTION_")
_PINNED = ("FLASH_ATTENTION_ARCH", "FLASH_ATTENTION_NUM_SMS")


@dataclass(frozen=True)
class PerPass:
    """A value that differs by pass, `backend: {bwd: generic}`; a pass that is not named takes the default."""

    by_pass: tuple[tuple[str, object], ...]

    def resolve(self, pass_: object, default: object) -> object:
        """Return the value of a pass."""
        return dict(self.by_pass).get(str(pass_), default)


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        name: as a spec says it.
        parse: reads one value, of the type that `Variant` holds (`head_dim`: a pair).
        default: the value if a spec is silent; `...` if it must not be.
        per_pass: whether a mapping of passes to values is taken too.
    """

    name: str
    parse: Callable[[Value], object]
    default: object
    per_pass: bool = False

    def values(self, value: Value) -> list[object]:
        """Return the values that a spec gives, one or a list. Raises `SpecError`."""
        if not value.is_list:
            return [self._one(value)]
        found: list[object] = []
        for item in value.items(f"`{self.name}`"):
            parsed = self._one(item)
            if parsed in found:
                raise item.error(f"`{self.name}` has the value {item.kind} twice")
            found.append(parsed)
        return found

    def _one(self, value: Value) -> object:
        if self.per_pass and value.is_mapping:
            inner = value.mapping(PASSES, f"`{self.name}`")
            if not inner:
                raise value.error(f"`{self.name}` is an empty mapping", f"it takes values by pass: {', '.join(PASSES)}")
            return PerPass(tuple((name, self.parse(item)) for name, item in inner.items()))
        return self.parse(value)


def _choice(name: str, *allowed: str | bool | None) -> Callable[[Value], object]:
    def parse(value: Value) -> object:
        found = value.scalar()
        if any(found is word or (isinstance(found, str) and found == word) for word in allowed):
            return found
        words = [word if isinstance(word, str) else json.dumps(word) for word in allowed]
        raise value.error(f"`{name}` can't be {value.kind}", hint_for(str(found), words))

    return parse


def _flag(name: str) -> Callable[[Value], object]:
    def parse(value: Value) -> object:
        found = value.scalar()
        if isinstance(found, bool):
            return found
        raise value.error(f"`{name}` can't be {value.kind}", "allowed: true, false")

    return parse


def _count(name: str, low: int, high: int) -> Callable[[Value], int]:
    def parse(value: Value) -> int:
        found = value.scalar()
        if isinstance(found, int) and not isinstance(found, bool) and low <= found <= high:
            return found
        raise value.error(f"`{name}` can't be {value.kind}", f"allowed: an integer from {low} to {high}")

    return parse


def _none_or(parse: Callable[[Value], object]) -> Callable[[Value], object]:
    def parse_or_none(value: Value) -> object:
        return None if not value.is_list and not value.is_mapping and value.scalar() is None else parse(value)

    return parse_or_none


def _auto_or(parse: Callable[[Value], object]) -> Callable[[Value], object]:
    def parse_or_auto(value: Value) -> object:
        return None if not value.is_list and not value.is_mapping and value.scalar() == _AUTO else parse(value)

    return parse_or_auto


def _pair(name: str, what: str, item: Callable[[Value], int]) -> Callable[[Value], tuple[int, int]]:
    def parse(value: Value) -> tuple[int, int]:
        if not value.is_list or len(items := value.items(f"`{name}`")) != 2:
            raise value.error(f"`{name}` can't be {value.kind}", f"allowed: auto, or {what} inside a list of values")
        return item(items[0]), item(items[1])

    return parse


_dim = _count("head_dim", 1, 1024)


def _head_dim(value: Value) -> object:
    if not value.is_list:
        dim = _dim(value)
        return dim, dim
    pair = [_dim(item) for item in value.items("`head_dim`")]
    if len(pair) != 2:
        raise value.error("a head_dim is one number, or a pair [head_dim of Q and K, head_dim of V]")
    return pair[0], pair[1]


def _window(value: Value) -> object:
    if not value.is_list and value.scalar() is None:
        return None
    if not value.is_list or len(items := value.items("`window`")) != 2:
        hint = (
            "allowed: null, or a pair [left, right] inside a list of values: `window: [[1023, 0]]`; null is unbounded"
        )
        raise value.error(f"`window` can't be {value.kind}", hint)
    side = _count("window", 0, 2**31 - 1)
    left, right = (None if not item.is_list and item.scalar() is None else side(item) for item in items)
    if left is None and right is None:
        raise value.error("a window that is unbounded on both sides is no window", "write `window: null`")
    return left, right


def _sides(name: str) -> Callable[[Value], object]:
    def parse(value: Value) -> object:
        found = value.scalar()
        if isinstance(found, bool) or found in ("q", "k"):
            return found
        raise value.error(f"`{name}` can't be {value.kind}", "allowed: false, true, q, k")

    return parse


def _softcap(value: Value) -> object:
    found = value.scalar()
    if isinstance(found, (int, float)) and not isinstance(found, bool) and 0 < found < float("inf"):
        return found  # 15 and 15.0 are two kernels to FA4
    raise value.error(f"`softcap` can't be {value.kind}", "allowed: null, a positive number")


def _reference(name: str) -> Callable[[Value], object]:
    def parse(value: Value) -> object:
        found = value.scalar()
        if isinstance(found, str) and _REFERENCE.fullmatch(found):
            return found
        raise value.error(
            f"`{name}` can't be {value.kind}", "allowed: null, `module:attribute` of an importable module"
        )

    return parse


def _aux_tensors(value: Value) -> object:
    items = value.items("`aux_tensors`") if value.is_list else [value]
    return tuple(_aux_tensor(item) for item in items)


def _aux_tensor(value: Value) -> AuxTensor:
    inner = value.mapping(("dtype", "shape", "shared"), "a tensor of `aux_tensors`")
    if "dtype" not in inner or "shape" not in inner:
        raise value.error("a tensor of `aux_tensors` needs `dtype` and `shape`")
    size = _count("size", 1, 2**31 - 1)
    shape: list[int | str] = []
    for item in inner["shape"].items("`shape` of a tensor"):
        found = item.scalar()
        if isinstance(found, str) and found not in SIZES:
            raise item.error(f"`{found}` is no size of a call", hint_for(found, SIZES))
        shape.append(found if isinstance(found, str) else size(item))
    dtype = _choice("dtype", *_AUX_DTYPES)(inner["dtype"])
    position = _count("position", 0, len(shape) - 1)
    shared = [position(item) for item in inner["shared"].items("`shared`")] if "shared" in inner else []
    return AuxTensor(str(dtype), tuple(shape), tuple(sorted(set(shared))))


def _aux_scalars(value: Value) -> object:
    items = value.items("`aux_scalars`") if value.is_list else [value]
    return tuple(str(_choice("aux_scalars", "int", "float")(item)) for item in items)


def _job_env(value: Value) -> object:
    found = []
    for name, item in value.mapping(None, "`job_env`").items():
        setting = item.scalar()
        if setting is None or isinstance(setting, bool):
            raise item.error(f"`{name}` can't be {item.kind}", "write the variable's text: a number or a word")
        if not name.startswith(_JOB_VARIABLES):
            hint = f"allowed: variables that begin with {', '.join(_JOB_VARIABLES)}"
            raise item.error(f"`{name}` is no variable of the provider's", hint)
        if name in _PINNED:
            raise item.error(f"`{name}` is what the target says", "name another target")
        found.append((name, str(setting)))
    return tuple(sorted(found))


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
    rows = _count("rows of a sparse block", 1, 65536)
    parsers: dict[str, Callable[[Value], object]] = {
        "q_block": rows,
        "kv_block": rows,
        "batch": _choice("batch", "shared", "each"),
        "heads": _choice("heads", "shared", "each"),
        "full_blocks": _flag("full_blocks"),
        "descending": _flag("descending"),
        "bwd_q_block": rows,
        "bwd_kv_block": rows,
        "computed": _choice("computed", False, "exact", "sampled"),
    }
    return Sparse(**{name: parsers[name](item) for name, item in inner.items()})  # type: ignore[arg-type]


def _shape(value: Value) -> object:
    inner = value.mapping([field.name for field in fields(Shape)], "`shape`")
    size = _count("size", 1, 2**31 - 1)
    return Shape(**{name: size(item) for name, item in inner.items()})


AXES: dict[str, Axis] = {
    axis.name: axis
    for axis in (
        Axis("pass", _choice("pass", *PASSES), ...),
        Axis("dtype", _choice("dtype", "bf16", "fp16", "fp8_e4m3", "fp8_e5m2"), ...),
        Axis("head_dim", _head_dim, ...),
        Axis("causal", _flag("causal"), False),
        Axis("window", _window, None),
        Axis("qheads_per_kvhead", _count("qheads_per_kvhead", 1, 1024), 1),
        Axis("varlen", _sides("varlen"), False),
        Axis("tile", _auto_or(_pair("tile", "a pair [rows, columns]", _count("tile", 1, 1024))), None, per_pass=True),
        Axis("cluster_size", _auto_or(_count("cluster_size", 1, 16)), None, per_pass=True),
        Axis("sparse", _sparse, None),
        Axis("backend", _auto_or(_choice("backend", "auto", "dedicated", "generic")), None, per_pass=True),
        Axis("deterministic", _flag("deterministic"), False),
        Axis("return_lse", _return_lse, False),
        Axis("max_seqlen", _choice("max_seqlen", "given", "omitted"), "given"),
        Axis("softcap", _none_or(_softcap), None),
        Axis("sink", _choice("sink", None, "bf16", "fp16", "fp32"), None),
        Axis("descale", _choice("descale", None, "q", "k", "v", "qk", "qv", "kv", "qkv"), None),
        Axis("pack_gqa", _auto_or(_flag("pack_gqa")), None),
        Axis("seqused", _sides("seqused"), False),
        Axis("paged_kv", _none_or(_count("paged_kv", 1, 65536)), None),
        Axis("num_splits", _count("num_splits", 0, 256), 1),
        Axis("seqlen_k_per_split", _none_or(_count("seqlen_k_per_split", 1, 2**31 - 1)), None),
        Axis("scheduler_metadata", _choice("scheduler_metadata", "auto", "given", "off"), "auto"),
        Axis("mask_mod", _none_or(_reference("mask_mod")), None),
        Axis("score_mod", _none_or(_reference("score_mod")), None),
        Axis("score_mod_bwd", _none_or(_reference("score_mod_bwd")), None),
        Axis("aux_tensors", _none_or(_aux_tensors), None),
        Axis("aux_scalars", _none_or(_aux_scalars), None),
        Axis("qv", _choice("qv", False, "with-q", "alone"), False),
        Axis("gather_kv", _none_or(_count("gather_kv", 1, 2**20)), None),
        Axis("gather_bwd", _choice("gather_bwd", "saved-p", "recomputed-p"), "saved-p"),
        Axis("job_env", _job_env, ()),
        Axis("shape", _shape, Shape()),
    )
}


def make_variant(point: dict[str, object]) -> Variant:
    """Return the variant of one value an axis."""
    resolved = dict(point)
    pair = resolved.pop("head_dim")
    assert isinstance(pair, tuple)
    pass_ = resolved.pop("pass")
    return Variant(pass_=pass_, head_dim=pair[0], head_dim_v=pair[1], **resolved)  # type: ignore[arg-type]

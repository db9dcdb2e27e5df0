"""From a call that a job makes to the spec entry that enumerates it: `CallBuilder` of `arguments` the other way round.

For explanations, and for the record of what a job stores. Where it runs torch and FA4 are loaded; it imports neither.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import FrameType, MappingProxyType
from typing import Any, Literal

from ...cache.key import digest_json
from ..packages import is_in
from .given import arguments_of, given_besides
from .told import aux_tensors, descales, reference_of, scalars, sparse
from .variant import MODIFIERS, Shape, Variant, Varlen

_DTYPES = MappingProxyType(
    {
        "torch.bfloat16": "bf16",
        "torch.float16": "fp16",
        "torch.float32": "fp32",
        "torch.float8_e4m3fn": "fp8_e4m3",
        "torch.float8_e5m2": "fp8_e5m2",
    }
)
_NEEDED = ("q", "k", "v")
# What the provider's innermost function puts other values in the place of: those of the outermost one are the job's.
_GIVEN = ("max_seqlen_q", "max_seqlen_k", "num_splits", "pack_gqa", "scheduler_metadata", "score_mod")
# What an axis says, what follows from others, and what no kernel depends on.
_SAID = frozenset(
    itertools.chain(
        ("qv", "cu_seqlens_q", "cu_seqlens_k", "seqused_q", "seqused_k", "page_table", "causal", "softcap"),
        ("window_size", "window_size_left", "window_size_right", "learnable_sink", "block_sparse_tensors"),
        ("block_sparse_tensors_bwd", "return_lse", "gather_kv_indices", "gather_bwd_recompute_p", "recompute_p"),
        ("deterministic", "dout", "dlse", "ctx", "softmax_scale", "out", "lse", "dq", "dk", "dv", "dqv"),
        ("p", "row_max", "o_lo", "tile_mn", "disable_scheduler_metadata", "seqlen_k_per_split"),
        ("compile_only",),  # vLLM's: the call of a warm-up, with what describes tensors in their place
        ("aux_tensors", "aux_scalars", "q_descale", "k_descale", "v_descale"),
        (*_NEEDED, *_GIVEN, *MODIFIERS),
    )
)


@dataclass(frozen=True)
class Seen:
    """What a call is, as far as axes say it.

    Attributes:
        variant: the call, without what axes don't say of it.
        unsaid: what it has that no axis says, by names of arguments; the rest is not the call, then.
        unnamed: axes whose values only the job's code can tell, such as a function that is found by no name.
    """

    variant: Variant
    unsaid: Sequence[str] = ()
    unnamed: Sequence[str] = ()


def seen(frame: FrameType | None, package: str, job_env: Mapping[str, str] | None = None) -> Seen | None:
    """Return the call that the innermost function of the provider's with Q, K and V was given.

    Where none was, what no axis says is the function of the provider's that the job called, such as
    `flash_attn_combine()`; None if it called none. `job_env` are the provider's variables that the job has set.
    """
    arguments = _arguments(frame, package)
    if arguments is None:
        called = _called(frame, package)
        return None if called is None else _not_said([f"{called}()"])
    if unsaid := _unsaid(arguments, frame, package):
        return _not_said(unsaid)
    variant = replace(_variant(arguments), job_env=tuple(sorted((job_env or {}).items())))
    return Seen(variant, (), _unnamed(arguments))


def _not_said(what: Sequence[str]) -> Seen:
    return Seen(Variant("fwd", "bf16", 1, 1), what)


def spec_lines(frame: FrameType | None, package: str, job_env: Mapping[str, str] | None = None) -> str:
    """Return the spec entry of the same call.

    A comment names what the call has besides, and what no axis says. Empty if there is no such function.
    """
    call = seen(frame, package, job_env)
    if call is None:
        return ""
    if call.unsaid:
        return (
            f"# no axis says {_words(call.unsaid)} of this call: a spec says it by a `caller` (docs/how-to/callers.md)"
        )
    comment = f"# and, as only the job's code can tell: {_words(call.unnamed)}\n" if call.unnamed else ""
    return f"{comment}- {_flow(_entry(call.variant))}"


def observe(frame: FrameType | None, package: str, job_env: Mapping[str, str] | None = None) -> Variant | None:
    """Return the same call as a variant; None if there is none, or if it has more than can be told."""
    call = seen(frame, package, job_env)
    return None if call is None or call.unsaid or call.unnamed else call.variant


def _unnamed(arguments: Mapping[str, Any]) -> list[str]:
    """Return the axes of a call whose values can't be told from its arguments."""
    return [name for name, function in _functions(arguments).items() if reference_of(function) is None]


def _functions(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the functions of the job's in a call; of a softcap the provider makes its own."""
    own = [name for name in MODIFIERS if name == "mask_mod" or not arguments.get("softcap")]
    return {name: arguments[name] for name in own if arguments.get(name) is not None}


def _unsaid(arguments: Mapping[str, Any], frame: FrameType | None, package: str) -> list[str]:
    """Return what of a call no axis says."""
    dtype, blocks = str(arguments["q"].dtype), arguments.get("block_sparse_tensors")
    found = [dtype] if _DTYPES.get(dtype, "fp32") == "fp32" else []
    if blocks is not None and blocks.block_size is None:
        found.append("block_sparse_tensors without a block_size")
    try:
        scalars(arguments.get("aux_scalars"))
    except LookupError as error:
        found.append(str(error.args[0]))
    others = [name for one in _with_qkv(frame, package) for name in given_besides(one, _SAID)]
    return [*found, *dict.fromkeys(others)]


def _words(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _arguments(frame: FrameType | None, package: str) -> dict[str, Any] | None:
    found: dict[str, Any] | None = None
    for one in _with_qkv(frame, package):
        values = {name: one.f_locals.get(name) for name in arguments_of(one)}
        if found is None and all(hasattr(values[name], "shape") for name in _NEEDED):
            found = values
        elif found is not None:
            found.update({name: values[name] for name in _GIVEN if name in values})
            # What only an outer function takes, the backward's settings in a forward, is the call's, too.
            found.update({name: value for name, value in values.items() if name not in found})
    return found


def _with_qkv(frame: FrameType | None, package: str) -> Iterator[FrameType]:
    """Yield the calls of the provider's functions that take Q, K and V, the innermost first."""
    while frame is not None:
        if is_in(str(frame.f_globals.get("__name__", "")), package) and {*_NEEDED} <= {*arguments_of(frame)}:
            yield frame
        frame = frame.f_back


def _called(frame: FrameType | None, package: str) -> str | None:
    """Return the name of the outermost function of the provider's; None if there is none.

    Between it and the inner ones there may be frames of torch, which calls an operator for it.
    """
    called = None
    while frame is not None:
        if is_in(str(frame.f_globals.get("__name__", "")), package) and not frame.f_code.co_name.startswith("<"):
            called = frame.f_code.co_name
        frame = frame.f_back
    return called


def _variant(arguments: Mapping[str, Any]) -> Variant:
    q, k, v = (arguments[name] for name in _NEEDED)
    training = "dout" in arguments or any(tensor.requires_grad for tensor in (q, k, v))
    packed_q, packed_k = (arguments.get(f"cu_seqlens_{side}") for side in "qk")
    varlen = _sides(packed_q, packed_k)
    batch = q.shape[0] if packed_q is None else packed_q.shape[0] - 1
    given = varlen and isinstance(arguments.get("max_seqlen_q"), int)
    left, right = arguments.get("window_size_left"), arguments.get("window_size_right")
    return_lse = False if training else bool(arguments.get("return_lse"))
    pages, gathered = arguments.get("page_table"), arguments.get("gather_kv_indices")
    if "window_size_left" not in arguments:
        left, right = arguments.get("window_size") or (None, None)
    sink = arguments.get("learnable_sink")
    ratio = q.shape[-2] // v.shape[-2]
    if pages is None:
        rows_k = _rows(k, packed_k, arguments.get("max_seqlen_k"), batch)
    else:
        rows_k = int(pages.shape[1] * v.shape[1])
    variant = Variant(
        pass_="bwd" if training else "fwd",
        dtype=_dtype(q),
        head_dim=q.shape[-1],
        head_dim_v=v.shape[-1],
        causal=bool(arguments.get("causal")),
        window=None if (left, right) == (None, None) else (left, right),
        qheads_per_kvhead=ratio,
        # Of a backward FA4 says it, not the job.
        pack_gqa=arguments.get("pack_gqa") if ratio > 1 and "dout" not in arguments else None,
        varlen=varlen,
        tile=_tile(arguments.get("tile_mn")),
        sparse=sparse(arguments.get("block_sparse_tensors"), q.shape[-2], arguments.get("block_sparse_tensors_bwd")),
        deterministic=bool(arguments.get("deterministic")),
        return_lse="grad" if arguments.get("dlse") is not None else return_lse,
        max_seqlen="given" if given or not varlen else "omitted",
        softcap=arguments.get("softcap") or None,
        sink=None if sink is None else _dtype(sink),
        seqused=_sides(arguments.get("seqused_q"), arguments.get("seqused_k")),
        paged_kv=None if pages is None else int(v.shape[1]),
        num_splits=arguments.get("num_splits", 1),
        seqlen_k_per_split=arguments.get("seqlen_k_per_split"),
        scheduler_metadata=_metadata(arguments),
        descale=descales(arguments),
        aux_scalars=scalars(arguments.get("aux_scalars")),
        qv="with-q" if arguments.get("qv") is not None else "alone" if k is v else False,
        gather_kv=None if gathered is None else int(gathered.shape[-1]),
        gather_bwd="recomputed-p" if arguments.get("gather_bwd_recompute_p") else "saved-p",
        shape=Shape(batch, _heads(q, v), _rows(q, packed_q, arguments.get("max_seqlen_q"), batch), rows_k),
    )
    functions: dict[str, Any] = {name: reference_of(one) for name, one in _functions(arguments).items()}
    return replace(variant, aux_tensors=aux_tensors(arguments.get("aux_tensors"), variant.sizes), **functions)


def _tile(tile: object) -> tuple[int, int] | None:
    return (int(tile[0]), int(tile[1])) if isinstance(tile, tuple) else None


def _metadata(arguments: Mapping[str, Any]) -> Literal["auto", "given", "off"]:
    if arguments.get("disable_scheduler_metadata"):
        return "off"
    return "auto" if arguments.get("scheduler_metadata") is None else "given"


def _heads(q: Any, v: Any) -> int | None:
    default = Variant("fwd", "bf16", 1, 1, qheads_per_kvhead=q.shape[-2] // v.shape[-2]).heads
    return None if q.shape[-2] == default else int(q.shape[-2])


def _dtype(tensor: Any) -> str:
    return _DTYPES.get(str(tensor.dtype), str(tensor.dtype))


def _sides(queries: object, keys: object) -> Varlen:
    if queries is not None and keys is not None:
        return True
    return "q" if queries is not None else "k" if keys is not None else False


def _rows(tensor: Any, packed: object, longest: object, batch: int) -> int:
    if packed is None:
        return int(tensor.shape[1])
    return longest if isinstance(longest, int) else max(1, int(tensor.shape[0]) // batch)


def _entry(variant: Variant) -> dict[str, object]:
    """Return the axes as a spec writes them: a list stands for several values, so a pair is a list in a list.

    The name is one that no other call's entry has.
    """
    axes = variant.render()
    pairs = {name: [value] if isinstance(value, list) else value for name, value in axes.items()}
    return {"name": f"call-{digest_json(axes)[:8]}", **pairs}


def _flow(entry: Mapping[str, object]) -> str:
    import yaml

    return str(yaml.safe_dump(entry, default_flow_style=True, sort_keys=False, width=10_000)).strip()

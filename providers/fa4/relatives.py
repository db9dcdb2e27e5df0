"""Calls near a call, by chance: such that probably reach its kernels, and such that differ in one argument.

What an audit asks FA4 about. Whether two calls reach one kernel, FA4's keys say; whether that is right, its compiler.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from types import MappingProxyType

from ...errors import UsageError
from ..call import Call
from .shapes import require_possible, sized
from .variant import Sparse, Variant, own

SCALE = "softmax_scale"
LAYOUT = "layout"
HEADS_FIRST = "heads-first"
_LAYOUTS = (HEADS_FIRST, "interleaved")

_BATCHES = (1, 2, 3, 5, 8, 16, 64)
_SEQLENS = (1, 7, 64, 127, 128, 129, 200, 256, 257, 512, 1000, 2048, 4096, 5000, 8192, 16384, 65536)
_KV_HEADS = (1, 2, 3, 4, 8, 16)
_WIDTHS = (0, 1, 63, 127, 128, 511, 1023, 4095, 100_000)
_SCALES = (0.01, 0.0883883, 0.5, 1.0, 3.7)
_PAGES = (16, 64, 128, 256)
_SPLITS = (2, 3, 4, 8, 32)

# How often one that varies all, of those that leave the call's own sizes as they are.
_SHARE_FAR = 0.6

# Those that are not changed: sizes are for the others, demands change no call; `head_dim` changes with its pair.
_NO_AXES = frozenset(("shape", "caller", "arguments", "job_env", "cluster_size", "backend", "head_dim_v"))

# What an axis is changed to, besides what the spec's other calls have.
_VALUES: Mapping[str, Sequence[object]] = MappingProxyType(
    {
        "pass_": ("fwd", "bwd"),
        "dtype": ("bf16", "fp16"),
        "causal": (False, True),
        "window": (None, (127, 0), (1023, 0), (64, 64), (None, 256), (256, None)),
        "qheads_per_kvhead": (1, 2, 3, 4, 8, 16),
        "varlen": (False, True, "q", "k"),
        "tile": (None, (128, 64), (128, 128), (64, 128), (192, 128)),
        "deterministic": (False, True),
        "return_lse": (False, True, "grad"),
        "max_seqlen": ("given", "omitted"),
        "softcap": (None, 15.0, 15, 30.0),
        "sink": (None, "bf16", "fp16", "fp32"),
        "pack_gqa": (None, False, True),
        "seqused": (False, True, "q", "k"),
        "paged_kv": (None, 16, 64, 128, 256),
        "num_splits": (1, 0, 2, 3, 8),
        "seqlen_k_per_split": (None, 512, 1024, 2048),
        "scheduler_metadata": ("auto", "given", "off"),
        "aux_scalars": (None, ("int",), ("float",), ("int", "float")),
    }
)
_HEAD_DIMS = ((64, 64), (96, 96), (128, 128), (192, 128), (192, 192), (256, 256))


def others(call: Call, number: int, seed: int) -> list[Call]:
    """Return about so many calls that differ from a call in what should be in no key: sizes, scales, layouts."""
    chance = random.Random(f"{seed} {call}")
    found: dict[Call, None] = {}
    for _ in range(number):
        try:
            one = _far(call, chance) if chance.random() < _SHARE_FAR else call
        except UsageError:  # too large for any call
            continue
        found[replace(one, runtime=_runtime(own(one.variant), chance))] = None
    found.pop(call, None)
    return list(found)


def _far(call: Call, chance: random.Random) -> Call:
    variant = own(call.variant)
    kv_heads = chance.choice(_KV_HEADS)
    sizes = {
        "batch": chance.choice(_BATCHES),
        "heads": kv_heads * variant.qheads_per_kvhead,
        "seqlen_q": chance.choice(_SEQLENS),
        "seqlen_k": chance.choice(_SEQLENS),
    }
    kept = chance.sample(sorted(sizes), chance.randrange(len(sizes)))
    changed = sized(variant, {name: size for name, size in sizes.items() if name not in kept})
    if changed.window is not None:
        left, right = (None if side is None else chance.choice(_WIDTHS) for side in changed.window)
        changed = replace(changed, window=(left, right))
    if changed.paged_kv is not None:
        changed = replace(changed, paged_kv=chance.choice((changed.paged_kv, *_PAGES)))
    if changed.num_splits > 1:
        changed = replace(changed, num_splits=chance.choice(_SPLITS))
    return replace(call, variant=changed)


def _runtime(variant: Variant, chance: random.Random) -> tuple[tuple[str, object], ...]:
    if variant.caller is not None:  # it makes the call, and takes what it takes
        return ()
    found: dict[str, object] = {}
    if chance.random() < 0.7:
        found[SCALE] = chance.choice(_SCALES)
    if chance.random() < 0.5:
        found[LAYOUT] = chance.choice(_LAYOUTS)
    return tuple(sorted(found.items()))


def perturbed(calls: Sequence[Call], number: int, seed: int) -> list[tuple[str, Call, Call]]:
    """Return so many of these calls, each with one that differs in one argument, after the argument's name.

    What it changes to is none of these calls. Fewer if there are no more.
    """
    chance = random.Random(f"{seed} perturbed")
    known, among = set(calls), [own(call.variant) for call in calls]
    found: dict[tuple[Call, Call], str] = {}
    for _ in range(number * 20):
        if len(found) >= number:
            break
        call = chance.choice(calls)
        name, changed = _changed(own(call.variant), among, chance)
        if changed is None:
            continue
        pass_tile = changed.tile is not None and changed.pass_ == "fwd" and changed.caller is None
        other = replace(call, variant=changed, pass_tile=pass_tile)
        if other not in known:
            found[call, other] = name
    return [(name, call, other) for (call, other), name in found.items()]


def _changed(variant: Variant, among: Sequence[Variant], chance: random.Random) -> tuple[str, Variant | None]:
    """Return the name of an axis, and the variant with another value there; None if no call has that."""
    named = {field.name for field in fields(Variant) if field.name not in _NO_AXES and _choices(field.name, among)}
    named |= {"head_dim"} | ({"sparse"} if variant.sparse else set())
    if variant.pass_ == "bwd" or variant.caller is not None:
        named -= {"tile"}  # which only a forward is given, others demand
    name = chance.choice(sorted(named))
    changed = _with_other(variant, name, among, chance)
    if changed.heads % changed.qheads_per_kvhead:
        changed = replace(changed, shape=replace(changed.shape, heads=None))
    try:
        require_possible(changed)
    except UsageError:
        return name, None
    return name.rstrip("_"), changed


def _with_other(variant: Variant, name: str, among: Sequence[Variant], chance: random.Random) -> Variant:
    if name == "head_dim":
        head_dim, head_dim_v = chance.choice([*_HEAD_DIMS, *((one.head_dim, one.head_dim_v) for one in among)])
        return replace(variant, head_dim=head_dim, head_dim_v=head_dim_v)
    if name == "sparse" and variant.sparse is not None:
        return _with_other_blocks(variant, variant.sparse, chance)
    return replace(variant, **{name: chance.choice(_choices(name, among))})  # type: ignore[arg-type]


def _choices(name: str, among: Sequence[Variant]) -> list[object]:
    values = [*_VALUES.get(name, ()), *(getattr(one, name) for one in among)]
    distinct = list({repr(value): value for value in values}.values())
    return distinct if len(distinct) > 1 else []


def _with_other_blocks(variant: Variant, sparse: Sparse, chance: random.Random) -> Variant:
    changes: Sequence[Mapping[str, object]] = (
        {"full_blocks": not sparse.full_blocks},
        {"batch": "each" if sparse.batch == "shared" else "shared"},
        {"heads": "each" if sparse.heads == "shared" else "shared"},
        {"descending": not sparse.descending},
        {"q_block": 128 if sparse.q_block == 256 else 256},
        {"kv_block": 64 if sparse.kv_block == 128 else 128},
    )
    return replace(variant, sparse=replace(sparse, **chance.choice(changes)))  # type: ignore[arg-type]

"""From calls that a job made to those that a person would write: easier to say, and named by what they are for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from .variant import CLOSURE, SHAPE_SIZES, Shape, Variant

_FEW_ROWS = 16  # of Q: a step of decoding, perhaps with some tokens that were guessed


def kin(variant: Variant) -> list[Variant]:
    """Return the call with as few sizes as its shape can have, and in each of the ways in which its kernels are asked.

    A forward whose tensors want gradients does not show whether the job makes a backward, nor does a block mask show
    that the GPU computed it.
    """
    shapes = list(_shapes(variant.shape))
    ways = list(_ways(variant))
    return list(dict.fromkeys(replace(way, shape=shape) for shape in shapes for way in ways))


def _shapes(shape: Shape) -> Iterator[Shape]:
    own = [name for name in SHAPE_SIZES if getattr(shape, name) != getattr(Shape, name)]
    for number in range(len(own) + 1):
        for names in itertools.combinations(own, number):
            yield Shape(**{name: getattr(shape, name) for name in names})


def _ways(variant: Variant) -> Iterator[Variant]:
    yield variant
    if variant.pass_ == "bwd" and variant.qheads_per_kvhead > 1:  # of which a backward says nothing
        yield from (replace(variant, pack_gqa=packed) for packed in (None, False, True))
    if variant.pass_ == "bwd":
        forward = replace(variant, pass_="fwd", deterministic=False, score_mod_bwd=None, gather_bwd="saved-p")
        yield replace(variant, return_lse=False if variant.return_lse else "grad")
        yield replace(forward, return_lse=True)
        yield replace(forward, return_lse=False)
    if variant.sparse is not None and variant.mask_mod is not None and not variant.sparse.computed:
        for computed in ("exact", "sampled"):
            for full_blocks in (True, False):
                yield replace(
                    variant,
                    sparse=replace(variant.sparse, computed=computed, full_blocks=full_blocks),
                )


def widened(variants: Sequence[Variant]) -> dict[str, object]:
    """Return ranges: from one sequence and one row up to the next power of two above what was seen; heads as seen.

    What was always one stays so.
    """
    sizes: dict[str, object] = {}
    for name in ("batch", "seqlen_q", "seqlen_k"):
        most = max(one.sizes[name] for one in variants)
        sizes[name] = f"1..{1 << (most - 1).bit_length()}" if most > 1 else 1
    heads = sorted({one.heads for one in variants})
    sizes["heads"] = heads[0] if len(heads) == 1 else f"{heads[0]}..{heads[-1]}"
    return {"shape": sizes, "shapes": CLOSURE}


def entry_words(axes: Mapping[str, Sequence[object]]) -> list[str]:
    """Return words for an entry."""

    def always(name: str, neutral: object = None) -> bool:
        return name in axes and not any(value in (neutral, False, None) for value in axes[name])

    words = [_purpose(axes)]
    words += ["deterministic"] if always("deterministic") else []
    words += ["mla"] if always("qv") else []
    words += ["top-k"] if always("gather_kv") else []
    words += ["fp8"] if any(str(value).startswith("fp8") for value in axes.get("dtype", ())) else []
    words += (
        ["computed"] if all(isinstance(one, dict) and one.get("computed") for one in axes.get("sparse", [0])) else []
    )
    words += ["sparse"] if always("sparse") else []
    words += ["mask"] if always("mask_mod") else []
    words += ["score"] if always("score_mod") else []
    words += ["window"] if always("window") else []
    words += ["softcap"] if always("softcap") else []
    words += ["sink"] if always("sink") else []
    words += ["packed"] if always("varlen") else []
    words += ["paged"] if always("paged_kv") else []
    words += ["split"] if always("num_splits", 1) else []
    words += ["causal"] if always("causal") else []
    return [*words, *_numbers(axes)]


def _purpose(axes: Mapping[str, Sequence[object]]) -> str:
    if set(axes.get("pass", ())) == {"bwd"}:
        return "training"
    rows = [one.get("seqlen_q", Shape.seqlen_q) for one in axes.get("shape", [{}]) if isinstance(one, dict)]
    if axes.get("pass") and "bwd" not in axes["pass"]:
        return "decode" if rows and all(isinstance(one, int) and one <= _FEW_ROWS for one in rows) else "inference"
    return "all"


def _numbers(axes: Mapping[str, Sequence[object]]) -> list[str]:
    """Return what tells entries apart that have the same words."""
    dims, ratios = axes.get("head_dim", ()), axes.get("qheads_per_kvhead", (1,))
    found = [f"hd{dims[0] if isinstance(dims[0], int) else dims[0][0]}"] if len(dims) == 1 else []  # type: ignore[index]
    return [*found, *([f"gqa{ratios[0]}"] if len(ratios) == 1 and ratios[0] != 1 else [])]

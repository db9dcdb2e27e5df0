"""The variant of FlashAttention-4: one call that a job would make, by the axes of a spec."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

from ...text.words import one_line
from ..call import Demands, Environment
from ..call import Variant as AnyVariant

Pass = Literal["fwd", "bwd"]
Varlen = Literal[False, True, "q", "k"]
Arguments = tuple[tuple[str, object], ...]
"""What a caller is given besides the axes: numbers, words, booleans, None and tuples of them, by name, sorted."""
SHAPE_SIZES = ("batch", "heads", "seqlen_q", "seqlen_k")
CLOSURE = "closure"


@dataclass(frozen=True)
class Shape:
    """Sizes of a call. They matter only where the provider's selection depends on them: decode, a single block.

    Attributes:
        batch: sequences.
        heads: query heads; None is two KV heads' worth.
        seqlen_q, seqlen_k: rows of Q and of K and V.
        ranges: sizes that are open, as name, lowest and highest; what the size itself is, is one of them.
        named: the sizes that a spec names; what they are tells all else.
    """

    batch: int = 2
    heads: int | None = None
    seqlen_q: int = 4096
    seqlen_k: int = 4096
    ranges: tuple[tuple[str, int, int], ...] = ()
    named: frozenset[str] = field(default=frozenset(), compare=False, repr=False)

    def render(self) -> dict[str, object]:
        """Return the sizes that are open or not at their default, as JSON."""
        sizes = {name: getattr(self, name) for name in SHAPE_SIZES}
        given = {name: size for name, size in sizes.items() if size != getattr(Shape, name)}
        return given | {name: f"{low}..{high}" for name, low, high in self.ranges}


@dataclass(frozen=True)
class Sparse:
    """Block sparsity: rows of Q and of KV that one entry of the block mask covers.

    Attributes:
        q_block, kv_block: rows.
        bwd_q_block, bwd_kv_block: rows in the backward's mask, if they differ.
        computed: whether the job has FA4 compute the forward's mask on the GPU, from its `mask_mod`: `exact`, or
            `sampled` at five points of a block.
        batch, heads: `shared` if one mask serves all of them, `each` if each has its own. FA4 compiles other kernels.
        full_blocks: whether the mask tells blocks that are full from those that are partial.
        descending: in a deterministic backward, whether dQ is written from the last KV block to the first.
    """

    q_block: int
    kv_block: int
    batch: Literal["shared", "each"] = "shared"
    heads: Literal["shared", "each"] = "shared"
    full_blocks: bool = True
    descending: bool = False
    bwd_q_block: int | None = None
    bwd_kv_block: int | None = None
    computed: Literal[False, "exact", "sampled"] = False


@dataclass(frozen=True)
class AuxTensor:
    """A tensor that a `mask_mod` or `score_mod` reads.

    Attributes:
        dtype: torch's name, `int32`.
        shape: sizes: numbers, or the names of the call's own (`SIZES`).
        shared: positions in the shape along which it is the same, so that its stride is 0 there.
    """

    dtype: str
    shape: tuple[int | str, ...]
    shared: tuple[int, ...] = ()


MODIFIERS = ("mask_mod", "score_mod", "score_mod_bwd")
_BY_NAME = ("job_env", "arguments")
SIZES = ("batch", "heads", "kv_heads", "seqlen_q", "seqlen_k", "total_q", "total_k")


@dataclass(frozen=True, eq=False)
class Variant:
    """One call of FlashAttention, by the axes of a spec; docs/reference/specs.md says what each means.

    `pass_` is `fwd` for a forward without gradients, `bwd` for a training step: the forward that keeps the
    log-sum-exp, and the backward. `tile`, `cluster_size` and `backend` are demands on the kernel of the pass; None
    takes the provider's choice. `caller` is a function that makes the call with its `arguments`, as `module:function`.
    """

    pass_: Pass
    dtype: str
    head_dim: int
    head_dim_v: int
    causal: bool = False
    window: tuple[int | None, int | None] | None = None
    qheads_per_kvhead: int = 1
    varlen: Varlen = False
    tile: tuple[int, int] | None = None
    cluster_size: int | None = None
    sparse: Sparse | None = None
    backend: str | None = None
    deterministic: bool = False
    return_lse: Literal[False, True, "grad"] = False
    max_seqlen: Literal["given", "omitted"] = "given"
    softcap: float | None = None
    sink: str | None = None
    descale: str | None = None
    pack_gqa: bool | None = None
    seqused: Varlen = False
    paged_kv: int | None = None
    num_splits: int = 1
    seqlen_k_per_split: int | None = None
    scheduler_metadata: Literal["auto", "given", "off"] = "auto"
    mask_mod: str | None = None
    score_mod: str | None = None
    score_mod_bwd: str | None = None
    aux_tensors: tuple[AuxTensor, ...] | None = None
    aux_scalars: tuple[str, ...] | None = None
    qv: Literal[False, "with-q", "alone"] = False
    gather_kv: int | None = None
    gather_bwd: Literal["saved-p", "recomputed-p"] = "saved-p"
    job_env: Environment = ()
    shape: Shape = Shape()
    caller: str | None = None
    arguments: Arguments = ()

    def __eq__(self, other: object) -> bool:
        """Return whether another is the same call to FA4, whose keys tell a softcap of 15 from one of 15.0."""
        return isinstance(other, Variant) and self._typed() == other._typed()

    def __hash__(self) -> int:
        """Return a hash of the axes."""
        return hash(self._typed())

    def _typed(self) -> tuple[object, ...]:
        values = tuple(vars(self).values())
        return values, tuple(map(type, values)), repr(self.arguments)

    @property
    def heads(self) -> int:
        """Return the number of query heads."""
        return self.shape.heads or self.ordinary_heads

    @property
    def ordinary_heads(self) -> int:
        """Return what that is where a shape does not say."""
        return 2 * self.qheads_per_kvhead

    @property
    def kv_heads(self) -> int:
        """Return the number of heads of K and V."""
        return self.heads // self.qheads_per_kvhead

    @property
    def demands(self) -> Demands:
        """Return what is demanded of the kernel of the pass."""
        return Demands(self.tile, self.cluster_size, self.backend)

    @property
    def functions(self) -> tuple[str, ...]:
        """Return the `mask_mod` and `score_mod`s, as `module:attribute`."""
        return tuple(reference for name in MODIFIERS if (reference := getattr(self, name)) is not None)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the call by the names of `SIZES`."""
        shape = self.shape
        return {
            "batch": shape.batch,
            "heads": self.heads,
            "kv_heads": self.kv_heads,
            "seqlen_q": shape.seqlen_q,
            "seqlen_k": shape.seqlen_k,
            "total_q": shape.batch * shape.seqlen_q,
            "total_k": shape.batch * shape.seqlen_k,
        }

    def render(self) -> dict[str, object]:
        """Return the axes that are not at their default, by their names in a spec, as JSON."""
        same = self.head_dim == self.head_dim_v
        content: dict[str, object] = {
            "pass": self.pass_,
            "dtype": self.dtype,
            "head_dim": self.head_dim if same else [self.head_dim, self.head_dim_v],
        }
        for axis in fields(self):
            value = getattr(self, axis.name)
            if axis.name not in ("pass_", "dtype", "head_dim", "head_dim_v") and value != axis.default:
                by_name = axis.name in _BY_NAME
                content[axis.name] = {name: _json(one) for name, one in value} if by_name else _json(value)
        return content | ({"shapes": CLOSURE} if self.shape.ranges else {})

    def __str__(self) -> str:
        """Return the axes as one line for people."""
        return one_line(self.render())


def own(variant: AnyVariant) -> Variant:
    """Return a variant that was handed to FA4's provider, which has made it."""
    assert isinstance(variant, Variant)
    return variant


def _json(value: object) -> object:
    if isinstance(value, AuxTensor):
        shared = {"shared": list(value.shared)} if value.shared else {}
        return {"dtype": value.dtype, "shape": list(value.shape), **shared}
    if isinstance(value, tuple):
        return [_json(item) for item in value]
    if isinstance(value, Shape):
        return value.render()
    if isinstance(value, Sparse):
        defaults = {field.name: field.default for field in fields(value)}
        inner = {field.name: getattr(value, field.name) for field in fields(value)}
        return {name: item for name, item in inner.items() if item != defaults[name]}
    return value

"""The variant: one point of a spec, one call that a job would make."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from .words import one_line

Pass = Literal["fwd", "bwd"]
Varlen = Literal[False, True, "q", "k"]


@dataclass(frozen=True)
class Shape:
    """Sizes of a call. They matter only where the provider's selection depends on them: decode, a single block.

    Attributes:
        batch: sequences.
        heads: query heads; None is two KV heads' worth.
        seqlen_q, seqlen_k: rows of Q and of K and V.
    """

    batch: int = 2
    heads: int | None = None
    seqlen_q: int = 4096
    seqlen_k: int = 4096


@dataclass(frozen=True)
class Sparse:
    """Block sparsity: rows of Q and of KV that one entry of the block mask covers.

    Attributes:
        q_block, kv_block: rows.
        batch, heads: `shared` if one mask serves all of them, `each` if each has its own. FA4 compiles other kernels.
        full_blocks: whether the mask tells blocks that are full from those that are partial.
    """

    q_block: int
    kv_block: int
    batch: Literal["shared", "each"] = "shared"
    heads: Literal["shared", "each"] = "shared"
    full_blocks: bool = True


@dataclass(frozen=True)
class Variant:
    """One call of FlashAttention, by the axes of a spec; docs/reference/specs.md says what each means.

    `pass_` is `fwd` for a forward without gradients, `bwd` for a training step: the forward that keeps the
    log-sum-exp, and the backward. `tile`, `cluster_size` and `backend` are demands on the kernel of the pass; None
    takes the provider's choice.
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
    shape: Shape = Shape()

    @property
    def heads(self) -> int:
        """Return the number of query heads."""
        return self.shape.heads or 2 * self.qheads_per_kvhead

    @property
    def has_demands(self) -> bool:
        """Return whether the provider's choice has to be compared with what the spec demands."""
        return self.tile is not None or self.cluster_size is not None or self.backend is not None

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
                content[axis.name] = _json(value)
        return content

    def __str__(self) -> str:
        """Return the axes as one line for people."""
        return one_line(self.render())


def _json(value: object) -> object:
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, (Shape, Sparse)):
        defaults = {field.name: field.default for field in fields(value)}
        inner = {field.name: getattr(value, field.name) for field in fields(value)}
        return {name: item for name, item in inner.items() if item != defaults[name]}
    return value

"""What FlashAttention supports, point by point: pass, head_dim, block sparsity, cluster_size, backend."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ...cache.record import Selection
from ..call import BlockSize, Matrix, Refused, Select, Selected, Unmet
from .blocks import smallest_blocks
from .variant import Pass, Sparse, Variant

HEAD_DIMS = ((64, 64), (96, 96), (128, 128), (192, 128), (256, 256))
_PASSES: tuple[Pass, ...] = ("fwd", "bwd")
_CLUSTER_SIZES = (1, 2)
_BACKENDS = ("generic", "dedicated")


@dataclass(frozen=True)
class Point:
    """One line of the matrix.

    Attributes:
        variant: the call, with the demands.
        selection: what the provider selects, or None.
        reason: why it does not take the call, in its words.
        block_size: rows of Q and of KV of the smallest blocks that it takes, for a block-sparse call.
        environment: variables that a job must set.
    """

    variant: Variant
    selection: Selection | None
    reason: str = ""
    block_size: BlockSize | None = None
    environment: Mapping[str, str] | None = None

    def render(self) -> dict[str, object]:
        """Return the point as JSON."""
        variant = self.variant
        same = variant.head_dim == variant.head_dim_v
        return {
            "pass": variant.pass_,
            "head_dim": variant.head_dim if same else [variant.head_dim, variant.head_dim_v],
            "sparse": variant.sparse is not None,
            "cluster_size": variant.cluster_size,
            "backend": variant.backend,
            "supported": self.selection is not None,
            "selection": self.selection.render() if self.selection else None,
            "block_size": list(self.block_size) if self.block_size else None,
            "runtime_env": dict(self.environment or {}),
            "reason": self.reason,
        }


def matrix(select: Select) -> list[Point]:
    """Ask about every point of the matrix."""
    variants = [
        Variant(pass_, "bf16", *head_dim, cluster_size=cluster_size, backend=backend)
        for pass_, head_dim, cluster_size, backend in itertools.product(_PASSES, HEAD_DIMS, _CLUSTER_SIZES, _BACKENDS)
    ]
    dense = select(variants)
    sparse = smallest_blocks(variants, select, dense)
    points = []
    for variant in variants:
        size, answer = sparse[variant]
        points.append(_point(variant, dense[variant], None))
        points.append(_point(replace(variant, sparse=Sparse(*(size or (0, 0)))), answer, size))
    return points


def render(points: Sequence[Point]) -> Matrix:
    """Return the matrix as JSON and as a table for people."""
    return Matrix([point.render() for point in points], list(_lines(points)))


def _point(variant: Variant, answer: Selected | Refused | Unmet, size: BlockSize | None) -> Point:
    if isinstance(answer, Selected):
        return Point(variant, answer.kernel.selection, "", size, dict(answer.environment))
    return Point(variant, None, answer.reason)


def _lines(points: Sequence[Point]) -> Iterator[str]:
    yield f"{'pass':5}{'head_dim':12}{'sparse':8}{'cluster':9}{'backend':11}kernel"
    for point in points:
        variant = point.variant
        same = variant.head_dim == variant.head_dim_v
        dims = f"{variant.head_dim}" if same else f"({variant.head_dim}, {variant.head_dim_v})"
        sparse = "yes" if variant.sparse is not None else "no"
        yield f"{variant.pass_:5}{dims:12}{sparse:8}{variant.cluster_size!s:9}{variant.backend!s:11}{_outcome(point)}"


def _outcome(point: Point) -> str:
    if point.selection is None:
        return f"no: {point.reason}"
    parts = [f"{point.selection.kernel_class} {point.selection.shown_tiles}"]
    if point.block_size:
        parts.append("blocks {}x{}".format(*point.block_size))
    parts += [f"job sets {name}={value}" for name, value in (point.environment or {}).items()]
    return ", ".join(parts)

"""What the installed provider supports, point by point: pass, head_dim, block sparsity, cluster_size, backend.

And the block sizes that a mask must be built with, which are found by offering sizes: the smallest that the provider
takes without a smaller tile.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..cache.record import Selection
from ..cache.target import Target
from .compilers import Compilers
from .plan import Selected, select
from .variant import Pass, Sparse, Variant
from .words import tiles

HEAD_DIMS = ((64, 64), (96, 96), (128, 128), (192, 128), (256, 256))
_PASSES: tuple[Pass, ...] = ("fwd", "bwd")
_CLUSTER_SIZES = (1, 2)
_BACKENDS = ("generic", "dedicated")

# Sizes that are offered: rows of Q and of KV that a block covers. Every tile that a release of the provider has had is
# a multiple of one of these, or one itself.
_Q_BLOCKS = (64, 80, 96, 128, 192, 256, 384, 512)
_KV_BLOCKS = (48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 240, 256)

BlockSize = tuple[int, int]

_NUMBER = re.compile(r"\d+")


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


def matrix(compilers: Compilers, dtype: str = "bf16") -> list[Point]:
    """Ask about every point of the matrix for a target."""
    points = [
        Variant(pass_, dtype, *head_dim, cluster_size=cluster_size, backend=backend)
        for pass_, head_dim, cluster_size, backend in itertools.product(_PASSES, HEAD_DIMS, _CLUSTER_SIZES, _BACKENDS)
    ]
    dense = select(points, compilers)
    found = {(variant, False): _point(variant, dense[variant], None) for variant in points}
    sparse = block_sizes(dense, compilers)
    for variant in points:
        size, answer = sparse[variant]
        found[variant, True] = _point(replace(variant, sparse=Sparse(*(size or (0, 0)))), answer, size)
    return [found[variant, is_sparse] for variant in points for is_sparse in (False, True)]


def _point(variant: Variant, answer: Selected | str, size: BlockSize | None) -> Point:
    if isinstance(answer, str):
        return Point(variant, None, answer)
    return Point(variant, answer.kernel.selection, "", size, dict(answer.environment))


def block_sizes(
    dense: Mapping[Variant, Selected | str], compilers: Compilers
) -> dict[Variant, tuple[BlockSize | None, Selected | str]]:
    """Return the smallest blocks that the provider takes, with its largest tile, for each variant with block sparsity.

    `dense` are its answers to the variants without. A block-sparse backward needs a forward first: it has the smallest
    blocks that the provider takes for one, whatever the demands on the backward.
    """
    refused = {variant: answer for variant, answer in dense.items() if isinstance(answer, str) and not _demand(answer)}
    variants = [variant for variant in dense if variant not in refused]
    forwards = {
        variant: replace(variant, pass_="fwd", cluster_size=None, backend=None)
        for variant in variants
        if variant.pass_ == "bwd"
    }
    forward_sizes = _best(list(dict.fromkeys(forwards.values())), compilers, {}) if forwards else {}
    known = {variant: forward_sizes[forward][0] for variant, forward in forwards.items()}
    found = _best(variants, compilers, known)
    # What is refused without block sparsity, too, is refused for another reason than the size of blocks.
    found.update({variant: (None, reason) for variant, reason in refused.items()})
    return found


def _demand(reason: str) -> bool:
    return reason.startswith("demands ")


def _best(
    variants: Sequence[Variant], compilers: Compilers, forward_sizes: Mapping[Variant, BlockSize | None]
) -> dict[Variant, tuple[BlockSize | None, Selected | str]]:
    offers = {
        (variant, size): replace(variant, sparse=_sparse(size, forward_sizes.get(variant)))
        for variant in variants
        for size in _sizes()
    }
    answers = select(list(dict.fromkeys(offers.values())), compilers)
    found: dict[Variant, tuple[BlockSize | None, Selected | str]] = {}
    for variant in variants:
        outcomes = [(size, answers[offers[variant, size]]) for size in _sizes()]
        taken = [(size, answer) for size, answer in outcomes if isinstance(answer, Selected)]
        # Where the provider fits its tile to small blocks (SM90), those that keep the largest tile are meant.
        best = max(taken, key=lambda item: _area(item[1].kernel.selection), default=None)
        found[variant] = best or (None, _reason([answer for _, answer in outcomes if isinstance(answer, str)]))
    return found


def _area(selection: Selection) -> int:
    return max(rows * columns for rows, columns in selection.tiles.values())


def _reason(reasons: Sequence[str]) -> str:
    """Return the demand that is not met, else the reason that the fewest sizes meet, and of these the largest.

    Most sizes are refused for what they are, before the provider comes to what it says against block sparsity itself.
    """
    kinds = {reason: _NUMBER.sub("", reason) for reason in reasons}
    counts = Counter(kinds[reason] for reason in reasons)
    rarest = min(reversed(reasons), key=lambda reason: counts[kinds[reason]])
    return next((reason for reason in reasons if _demand(reason)), rarest)


def _sparse(size: BlockSize, forward: BlockSize | None) -> Sparse:
    if forward is None:
        return Sparse(*size)
    return Sparse(*forward, bwd_q_block=size[0], bwd_kv_block=size[1])


def _sizes() -> list[BlockSize]:
    return sorted(itertools.product(_Q_BLOCKS, _KV_BLOCKS), key=lambda size: (size[0] * size[1], size[0]))


def lines(points: Sequence[Point], target: Target) -> Iterator[str]:
    """Yield the matrix as a table for people."""
    yield f"{target.name} ({target.arch}): what the installed provider selects, or its reason against it"
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
    parts = [f"{point.selection.kernel_class} {tiles(point.selection)}"]
    if point.block_size:
        parts.append("blocks {}x{}".format(*point.block_size))
    parts += [f"job sets {name}={value}" for name, value in (point.environment or {}).items()]
    return ", ".join(parts)

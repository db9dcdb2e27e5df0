"""What a provider chose for a key, read from the kernel object that it hands to its compiler."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator, Mapping

from ...cache.record import Selection
from ..packages import is_in


def read_selection(kernel: object, key_fields: Mapping[str, object], package: str) -> Selection:
    """Return tiles, cluster size and backend from the attributes of a kernel object, else from the key."""
    facts = {**key_fields, **getattr(kernel, "__dict__", {})}
    # The head_dim 256 backward holds a kernel for dQ and one for dK and dV, whose clusters the key does not tell.
    for part in getattr(kernel, "__dict__", {}).values():
        if is_in(type(part).__module__, package) and hasattr(part, "cluster_shape_mn"):
            facts.setdefault("cluster_shape_mn", part.cluster_shape_mn)
    cls = kernel if inspect.isclass(kernel) or inspect.isfunction(kernel) else type(kernel)
    return Selection(
        kernel_class=cls.__name__,
        backend="dedicated" if "hd256" in cls.__module__ else "generic",
        cluster_size=_cluster_size(facts),
        tiles=dict(_tiles(facts)),
    )


def _cluster_size(facts: Mapping[str, object]) -> int:
    shape = facts.get("cluster_shape_mn")
    if isinstance(shape, tuple) and all(isinstance(n, int) for n in shape):
        return math.prod(shape)
    size = facts.get("cluster_size")
    if isinstance(size, int):
        return size
    return 2 if facts.get("use_2cta_instrs") is True else 1


def _tiles(facts: Mapping[str, object]) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield (role, tile): `tile_m` with `tile_n` is the main tile, `tile_m_dq` with `tile_n_dq` that of dQ."""
    found = False
    for name, rows in facts.items():
        match = re.fullmatch(r"tile_m_(\w+)", name)
        columns = facts.get(f"tile_n_{match[1]}") if match else None
        if match and isinstance(rows, int) and isinstance(columns, int):
            found = True
            yield match[1], (rows, columns)
    for m, n in (("m_block_size", "n_block_size"), ("tile_m", "tile_n")):
        rows, columns = facts.get(m), facts.get(n)
        if not found and isinstance(rows, int) and isinstance(columns, int):
            yield "main", (rows, columns)
            return

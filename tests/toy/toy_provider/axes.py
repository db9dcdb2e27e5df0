"""The axes of `toy_kernels`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fa4_precompile.providers.axes import Axis, auto_or, choice, count, pair

from .variant import DTYPES, OPS

AXES: Mapping[str, Axis] = MappingProxyType(
    {
        axis.name: axis
        for axis in (
            Axis("op", choice("op", *OPS), ...),
            Axis("dtype", choice("dtype", *DTYPES), ...),
            Axis("width", count("width", 1, 2**20), ...),
            Axis("tile", auto_or(pair("tile", "a pair [threads, values]", count("tile", 1, 1024))), None),
        )
    }
)

"""Writing things out for people, the same way everywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ..cache.record import Selection


def count(number: int, noun: str) -> str:
    """Return `1 kernel`, `2 kernels`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def one_line(fields: Mapping[str, object]) -> str:
    """Return the axes of a call, or other fields, as one line: `pass=fwd head_dim=[192, 128] causal`."""
    return " ".join(name if value is True else f"{name}={_short(value)}" for name, value in fields.items())


def describe(selection: Selection) -> str:
    """Return what the provider selected as one line."""
    tile = f", tile {tiles(selection)}" if selection.tiles else ""
    return f"cluster_size {selection.cluster_size}, backend {selection.backend}{tile} ({selection.kernel_class})"


def tiles(selection: Selection) -> str:
    """Return the tiles: `128x128`, or with their roles `dq 128x128, dkdv 128x64`."""
    return ", ".join(f"{'' if role == 'main' else f'{role} '}{m}x{n}" for role, (m, n) in selection.tiles.items())


def _short(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_short, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_short(item)}" for name, item in value.items()) + "}"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return str(value)

"""Writing things out for people, the same way everywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping

_MOST_NAMED = 8
"""Of what there can be thousands of."""


def count(number: int, noun: str) -> str:
    """Return `1 kernel`, `2 kernels`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def one_line(fields: Mapping[str, object]) -> str:
    """Return the axes of a call, or other fields, as one line: `pass=fwd head_dim=[192, 128] causal`."""
    return " ".join(name if value is True else f"{name}={_short(value)}" for name, value in fields.items())


def lacking(failed: Mapping[str, str], left: Mapping[str, str]) -> str:
    """Return what a build lacks that is not complete: how many kernels failed, and are left to which shards."""
    words = [f"{count(len(failed), 'kernel')} failed when it was built"] if failed else []
    if left:
        shards = sorted(set(left.values()), key=lambda shard: (len(shard), shard))
        more = f" and {len(shards) - _MOST_NAMED:,} more" if len(shards) > _MOST_NAMED else ""
        some = ", ".join(shards[:_MOST_NAMED])
        words.append(f"{count(len(left), 'kernel')} left to shard{'' if len(shards) == 1 else 's'} {some}{more}")
    return ", ".join(words)


def megabytes(size: int) -> str:
    """Return a size in bytes as megabytes."""
    return f"{size / 1e6:.1f} MB"


def _short(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_short, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_short(item)}" for name, item in value.items()) + "}"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return str(value)

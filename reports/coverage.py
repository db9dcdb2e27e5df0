"""What a cache covers, by what people ask first: head_dim, pass, mask, arch. And what was missed or excluded there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..cache.key import KernelId
from ..cache.manifest import Manifest
from ..text.words import one_line
from .job import MissedCall

_ROW, _PASS = "head_dim", "pass"
_MASKS = ("causal", "window", "mask_mod", "sparse")
_FULL = "full"
_UNSAID = "?"


@dataclass
class Cell:
    """What there is for one head_dim, pass, mask and arch: things of the calls of it that somebody asked for.

    Attributes:
        kernels: ids of those that are built.
        excluded: calls that the provider does not take, in words, with its reason.
        missed: calls that a job had no kernel for.
    """

    kernels: set[KernelId] = field(default_factory=set)
    excluded: dict[str, str] = field(default_factory=dict)
    missed: list[MissedCall] = field(default_factory=list)


@dataclass(frozen=True)
class Column:
    """A pass with a mask: `bwd`, `causal window`."""

    pass_: str
    mask: str


@dataclass(frozen=True)
class Matrix:
    """The cells of one arch, by row (the head_dim as a spec writes it) and column. Not every place has a cell."""

    arch: str
    rows: Sequence[str]
    columns: Sequence[Column]
    cells: Mapping[tuple[str, Column], Cell]


def matrices(manifests: Iterable[Manifest], misses: Iterable[MissedCall] = ()) -> list[Matrix]:
    """Return what builds cover and what calls were missed, an arch each."""
    found: dict[str, dict[tuple[str, Column], Cell]] = {}

    def at(arch: str, call: Mapping[str, object]) -> Cell:
        return found.setdefault(arch, {}).setdefault(_place(call), Cell())

    for manifest in manifests:
        arch = manifest.target.arch
        for call in manifest.calls:
            at(arch, call.variant).kernels.update(call.kernels)
        for excluded in manifest.excluded:
            at(arch, excluded.variant).excluded[one_line(excluded.variant)] = excluded.reason
    for miss in misses:
        at(miss.missed.arch or _UNSAID, miss.missed.call or {}).missed.append(miss)
    return [_matrix(arch, cells) for arch, cells in sorted(found.items())]


def _matrix(arch: str, cells: Mapping[tuple[str, Column], Cell]) -> Matrix:
    rows = sorted({row for row, _ in cells}, key=_row_order)
    columns = sorted({column for _, column in cells}, key=_column_order)
    return Matrix(arch, rows, columns, cells)


def _place(call: Mapping[str, object]) -> tuple[str, Column]:
    row = call.get(_ROW)
    shown = _UNSAID if row is None else str(row) if not isinstance(row, (list, tuple)) else ", ".join(map(str, row))
    return shown, Column(str(call.get(_PASS, _UNSAID)), mask_of(call) if call else _UNSAID)


def mask_of(call: Mapping[str, object]) -> str:
    """Return what a call masks, by the axes that do; `full` if it masks nothing."""
    names = [name for name in _MASKS if call.get(name) not in (None, False)]
    return " ".join(names) or _FULL


def _row_order(row: str) -> tuple[bool, list[int], str]:
    parts = row.split(", ")
    return row == _UNSAID, [int(part) if part.isdecimal() else 0 for part in parts], row


def _column_order(column: Column) -> tuple[bool, str, int, str]:
    masks = 0 if column.mask == _FULL else len(column.mask.split())
    return column.pass_ == _UNSAID, "" if column.pass_ == "fwd" else column.pass_, masks, column.mask

"""The coverage matrix, drawn: a table for each arch, and below it the reasons that no cell has room for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..cache.key import KernelId
from ..text.words import count
from .coverage import Cell, Matrix
from .html import Content, Html, element, scrolled, section, table

_BUILT, _MISSED, _EXCLUDED, _NONE = "cell-built", "cell-missed", "cell-excluded", "cell-none"
_MOST_REASONS = 200

_KEY = (
    (_BUILT, "\N{CHECK MARK} built", "kernels are in the cache"),
    (_MISSED, "\N{MULTIPLICATION SIGN} missed", "a process looked for one that was not there"),
    (_EXCLUDED, "\N{EN DASH} excluded", "the provider takes no such call"),
    (_NONE, "\N{MIDDLE DOT}", "nobody has asked for it"),
)


def coverage_section(matrices: Sequence[Matrix], users: Mapping[KernelId, int] | None = None) -> Html:
    """Return the matrices as a section; `users` says how many processes resolved a kernel, of a job."""
    if not matrices:
        return section("Coverage", note="There is no build that says which calls its kernels are for.")
    key = (element("li", element("span", mark, class_=kind), told) for kind, mark, told in _KEY)
    return section(
        "Coverage",
        *(part for matrix in matrices for part in _drawn(matrix, users)),
        element("ul", *key, class_="key"),
        _reasons(matrices),
        note="Rows are head_dim (of Q and K, of V), columns are the pass and what it masks.",
    )


def _drawn(matrix: Matrix, users: Mapping[KernelId, int] | None) -> Iterator[Html]:
    yield element("h3", matrix.arch if matrix.arch != "?" else "arch not known")
    passes: dict[str, int] = {}
    for column in matrix.columns:
        passes[column.pass_] = passes.get(column.pass_, 0) + 1
    upper = element(
        "tr",
        element("th", "head_dim", rowspan=2, scope="col"),
        (element("th", name, colspan=number, scope="colgroup") for name, number in passes.items()),
    )
    lower = element("tr", (element("th", column.mask, scope="col") for column in matrix.columns))
    rows = (
        element(
            "tr",
            element("th", row, scope="row"),
            (_cell(matrix.cells.get((row, column)), users) for column in matrix.columns),
        )
        for row in matrix.rows
    )
    yield scrolled(element("table", element("thead", upper, lower), element("tbody", rows), class_="matrix"))


def _cell(cell: Cell | None, users: Mapping[KernelId, int] | None) -> Html:
    if cell is None:
        return element("td", "\N{MIDDLE DOT}", class_=_NONE)
    built = f"\N{CHECK MARK} {len(cell.kernels):,}" if cell.kernels else None
    if cell.missed:
        who = {id(line) for miss in cell.missed for line in miss.who}
        also = _small(f"{built} built" if built else None)
        return element("td", "\N{MULTIPLICATION SIGN} missed", _small(f"by {len(who):,}"), also, class_=_MISSED)
    if built:
        most = max((users.get(kernel, 0) for kernel in cell.kernels), default=0) if users is not None else None
        used = None if most is None else f"used by {most:,}" if most else "not used"
        out = f"{len(cell.excluded):,} excluded" if cell.excluded else None
        return element("td", built, _small(used), _small(out), class_=_BUILT)
    return element("td", "\N{EN DASH}", _small("excluded"), class_=_EXCLUDED)


def _small(text: str | None) -> Html | None:
    return element("small", text) if text else None


def _reasons(matrices: Sequence[Matrix]) -> Html | None:
    """Return which calls are excluded and why: what a cell can't say on a screen that has no mouse."""
    found: dict[tuple[str, str], list[str]] = {}
    for matrix in matrices:
        for row in matrix.rows:
            for column in matrix.columns:
                for call, reason in (cell.excluded if (cell := matrix.cells.get((row, column))) else {}).items():
                    found.setdefault((matrix.arch, reason), []).append(call)
    if not found:
        return None
    number = sum(map(len, found.values()))
    rows: list[list[Content]] = [
        [arch, reason, f"{len(calls):,}", element("code", calls[0])]
        for (arch, reason), calls in list(found.items())[:_MOST_REASONS]
    ]
    return element(
        "details",
        element("summary", f"why {count(number, 'call')} {'is' if number == 1 else 'are'} excluded"),
        table(["arch", "the provider's reason", "calls", "the first of them"], rows),
    )

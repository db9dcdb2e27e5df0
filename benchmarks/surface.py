"""What of a release of FlashAttention-4 this project stands on, read without importing it; and what two differ in."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Calls = Mapping[str, str]  # a call of the spec, to the reason why it is refused


@dataclass(frozen=True)
class Surface:
    """A set of releases as this project sees it.

    Attributes:
        versions: version by distribution.
        files: the package's Python files.
        written: for each place of the source that keeps what it compiles, `file.py: place`, the expressions of its key.
        found: the slots that our provider finds in the process; nothing if it can't be imported.
        kernels: how many kernels the plan has; None if there is none.
        refused: each call that is not taken, with the reason.
        broken: why there is no plan, or calls that could not be asked about.
    """

    versions: Mapping[str, str]
    files: Sequence[str] = ()
    written: Mapping[str, Sequence[str]] = field(default_factory=dict)
    found: Sequence[str] = ()
    kernels: int | None = None
    refused: Calls = field(default_factory=dict)
    broken: Sequence[str] = ()


@dataclass(frozen=True)
class Change:
    """What one set has and the other has not. `what` is the kind of thing."""

    what: str
    new: Sequence[str]
    gone: Sequence[str]


def changes(before: Surface, after: Surface) -> list[Change]:
    """Return what two sets of releases differ in, each kind of thing once, and nothing for what they have alike."""
    found = [
        _change("file", before.files, after.files),
        _change("slot in the source", before.written, after.written),
        _change("slot that is found", before.found, after.found),
        *(_change(f"key of {place}", before.written[place], after.written[place]) for place in _common(before, after)),
        _change("refusal", _refusals(before), _refusals(after)),
        _change("failure", before.broken, after.broken),
    ]
    return [change for change in found if change.new or change.gone]


def render(before: Surface, after: Surface) -> dict[str, Any]:
    """Return both, and what they differ in, as JSON."""
    return {
        "installed": asdict(before),
        "newest": asdict(after),
        "changes": [asdict(change) for change in changes(before, after)],
    }


def report(before: Surface, after: Surface) -> Iterator[str]:
    """Yield both, and what they differ in, as lines for people."""
    for name in dict.fromkeys([*before.versions, *after.versions]):
        versions = before.versions.get(name, "none"), after.versions.get(name, "none")
        yield f"{name:32}" + (versions[0] if versions[0] == versions[1] else " -> ".join(versions))
    yield f"{'kernels in the plan':32}{_count(before)}" + ("" if _same_count(before, after) else f" -> {_count(after)}")
    differences = changes(before, after)
    for change in differences:
        yield f"{change.what}:"
        yield from (f"  + {item}" for item in change.new)
        yield from (f"  - {item}" for item in change.gone)
    if not differences and _same_count(before, after):
        yield "no file, slot, key, refusal or failure is new or gone"


def read_files(folder: Path) -> list[str]:
    """Return the Python files of a package's folder, by their path below it."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.py"))


def read_written(folder: Path) -> dict[str, list[str]]:
    """Return where the source of a package keeps what it compiles, with the expressions of each key.

    A place is what is indexed in `PLACE[key] = VALUE` if one of the two speaks of compiling.
    """
    found: dict[str, list[str]] = {}
    for name in read_files(folder):
        tree = ast.parse((folder / name).read_text(encoding="utf-8"))
        for function in ast.walk(tree):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                for place, key in _kept(function):
                    names = found.setdefault(f"{name}: {place}", [])
                    names += [expression for expression in key if expression not in names]
    return found


def _kept(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[str, list[str]]]:
    tuples: dict[str, list[str]] = {}
    for node in ast.walk(function):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AugAssign(target=ast.Name(id=name)):
                tuples.setdefault(name, []).extend(_elements(node.value))
    for node in ast.walk(function):
        match node:
            case ast.Assign(targets=[ast.Subscript(value=place, slice=key)], value=value) if _compiles(place, value):
                named = tuples.get(key.id, []) if isinstance(key, ast.Name) else _elements(key)
                yield ast.unparse(place), named


def _compiles(place: ast.expr, value: ast.expr) -> bool:
    called = value.func if isinstance(value, ast.Call) else value
    return "compile" in ast.unparse(place) or "compile" in ast.unparse(called)


def _elements(value: ast.expr) -> list[str]:
    if isinstance(value, ast.BinOp):
        return [*_elements(value.left), *_elements(value.right)]
    parts = value.elts if isinstance(value, ast.Tuple) else [value]
    return [" ".join(ast.unparse(part).split()) for part in parts]


def _change(what: str, before: Iterable[str], after: Iterable[str]) -> Change:
    old, new = list(before), list(after)
    return Change(what, [item for item in new if item not in old], [item for item in old if item not in new])


def _common(before: Surface, after: Surface) -> list[str]:
    return [place for place in before.written if place in after.written]


def _refusals(surface: Surface) -> list[str]:
    return [f"{call}: {reason}" for call, reason in surface.refused.items()]


def _count(surface: Surface) -> str:
    return "no plan" if surface.kernels is None else str(surface.kernels)


def _same_count(before: Surface, after: Surface) -> bool:
    return before.kernels == after.kernels

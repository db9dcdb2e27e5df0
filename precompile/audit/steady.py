"""Steady: two builds of one spec, as different as two builders are, have the same kernels to the byte.

Each is made by a process of its own, with its own hash seed, locale, umask, working folder and folder for temporary
files; the calls are in another order, and another number of kernels is compiled at a time.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ...cache.key import KernelId
from ...cache.outcome import Finding as Damage
from ...cache.outcome import Miss
from ...cache.record import Record
from ...cache.store import Root
from ...cache.target import Target
from ...errors import MachineError
from ...products.cubin import read_cubin
from ...products.differing import differences
from ..progress import Progress
from ..spec.spec import Spec
from . import builder
from .builder import Order
from .findings import Finding, Made, Part, entry_line
from .sample import Sample

NAME = "steady"

_START = f"import sys; sys.path = [p for p in sys.path if p]; from {builder.__name__} import main; main()"
_MOST_WORDS = 2000


@dataclass(frozen=True)
class _Way:
    """How one of the two builds is made."""

    name: str
    hash_seed: str
    locale: str
    umask: int
    jobs: int
    is_reversed: bool


@dataclass(frozen=True)
class _Built:
    """What one of the builds has: its kernels, and why others failed, by their labels."""

    root: Root
    records: Mapping[KernelId, Record]
    failed: Mapping[str, str]


def audit_steady(
    spec: Spec, target: Target, sample: Sample | None, jobs: int, time_limit: float, progress: Progress
) -> Part:
    """Build a spec twice, or a sample of it, and compare. Raises `MachineError` if a build can't be made at all."""
    spec = spec if sample is None else _part_of(spec, sample)
    ways = (
        _Way("first", "1", "C", 0o022, jobs, is_reversed=False),
        _Way("second", "4242", "C.UTF-8", 0o077, 1 if jobs > 1 else 2, is_reversed=True),
    )
    with tempfile.TemporaryDirectory(prefix="fa4-steady-") as folder:
        first, second = (_built(spec, target, way, Path(folder, way.name), time_limit, progress) for way in ways)
        names = list(dict.fromkeys([*first.records, *second.records]))
        findings = [
            *(_failure(label, reason) for label, reason in {**first.failed, **second.failed}.items()),
            *(found for name in names if (found := _compared(name, first, second)) is not None),
        ]
        equal = sum(first.records.get(name) == second.records.get(name) for name in names)
    return Part(NAME, {"kernels": len(names), "equal": equal}, findings)


def _part_of(spec: Spec, sample: Sample) -> Spec:
    variants = tuple(dict.fromkeys(call.variant for call in sample.calls))
    return replace(spec, entries=(replace(spec.entries[0], variants=variants, lists=()),))


def _backwards(spec: Spec) -> Spec:
    entries = (replace(entry, variants=entry.variants[::-1]) for entry in reversed(spec.entries))
    return replace(spec, entries=tuple(entries))


def _built(spec: Spec, target: Target, way: _Way, folder: Path, time_limit: float, progress: Progress) -> _Built:
    progress.note(f"building for the {way.name} time, {way.jobs} at a time")
    work, temporary, cache = (folder / name for name in ("work", "tmp", "cache"))
    for place in (work, temporary, cache):
        place.mkdir(parents=True)
    order = Order(_backwards(spec) if way.is_reversed else spec, target, cache, way.jobs, time_limit)
    settings = {"PYTHONHASHSEED": way.hash_seed, "LC_ALL": way.locale, "TMPDIR": str(temporary)}
    with tempfile.TemporaryFile() as orders, tempfile.TemporaryFile() as words:
        orders.write(pickle.dumps(order))
        orders.seek(0)
        with subprocess.Popen(
            [sys.executable, "-c", _START],
            env={**os.environ, **settings},
            cwd=work,
            umask=way.umask,
            stdin=orders,
            stdout=subprocess.PIPE,
            stderr=words,
        ) as process:
            try:
                failed = _followed(process, progress)
            finally:
                process.kill()
        if process.returncode != 0:
            words.seek(0)
            text = words.read().decode(errors="replace").strip()[-_MOST_WORDS:]
            raise MachineError(f"the {way.name} build ended with exit code {process.returncode}\n{text}".rstrip())
    return _Built(Root(cache), _records(Root(cache)), failed)


def _followed(process: subprocess.Popen[bytes], progress: Progress) -> dict[str, str]:
    """Hand on what a build tells of its progress until it ends, and return the kernels that failed, and why."""
    failed: dict[str, str] = {}
    assert process.stdout
    for line in process.stdout:
        said, *arguments = json.loads(line)
        getattr(progress, said)(*arguments)
        if said == "failed":
            failed[arguments[0]] = arguments[1]
    process.wait()
    return failed


def _records(root: Root) -> dict[KernelId, Record]:
    found: dict[KernelId, Record] = {}
    for one in root.records():
        if isinstance(one, Damage):
            raise MachineError(f"what was just built can't be read: `{one.path}`: {one.problem}")
        found[one.id] = one
    return found


def _failure(label: str, reason: str) -> Finding:
    return Finding(f"a kernel does not build: {label}", "", {}, [], [reason])


def _compared(kernel: KernelId, first: _Built, second: _Built) -> Finding | None:
    one, other = first.records.get(kernel), second.records.get(kernel)
    if one == other:
        return None
    known = one or other
    assert known is not None
    sides = [_side("first build", one, first, kernel), _side("second build", other, second, kernel)]
    if one is None or other is None:
        return Finding("a kernel is in one of two builds only", known.slot, known.key_fields, sides, [])
    return Finding(
        "two builds of one kernel differ",
        known.slot,
        known.key_fields,
        sides,
        list(_differs(one, other, first, second)),
    )


def _side(by: str, record: Record | None, built: _Built, kernel: KernelId) -> Made:
    origin = None if record is None else built.root.origin(record.toolchain, kernel)
    call = "" if origin is None or isinstance(origin, Damage) else entry_line(origin.variant)
    return Made(by, call, record.cubin if record else "")


def _differs(one: Record, other: Record, first: _Built, second: _Built) -> Iterator[str]:
    left, right = one.render(), other.render()
    yield f"fields of the record: {', '.join(name for name in left if left[name] != right.get(name))}"
    blobs = [built.root.find(record.toolchain, record.id) for built, record in ((first, one), (second, other))]
    cubins = [read_cubin(found.blob) for found in blobs if not isinstance(found, Miss)]
    if len(cubins) == 2:
        yield from differences(cubins[0], cubins[1])

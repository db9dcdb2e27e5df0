"""The kernels of a spec in a provider's own disk cache, for jobs in which nothing of ours is installed.

The cache in which they are stays as it is: what is written is a second one, in the layout of the provider, and nothing
in it is signed, digested or checked when it is read. Where the provider looks for a kernel is asked of itself, call by
call; a new process, with the provider's own caches and no compiler, then has to find and load each.
"""

from __future__ import annotations

import itertools
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..cache.manifest import Excluded
from ..cache.outcome import Miss
from ..cache.record import Record
from ..cache.store import Root
from ..cache.target import Target
from ..cache.toolchain import Toolchain
from ..errors import CacheError, MachineError, UsageError
from ..products.forwarding import forwarding_object
from ..providers.call import Call, Environment, Identity
from ..providers.disk import DiskCache, DiskEntry, NoEntry
from ..text.words import count
from .buildable import require_buildable, require_native
from .compile.compilers import Compilers
from .compile.pool import TaskFailed
from .compile.worker import disk_entries, disk_lookups
from .inventory import find_planned
from .plan import Plan, PlannedKernel, make_plan
from .spec.spec import Spec

_MIXED_UP = "the provider takes it for the kernel of another function of one hash"
_DOCTOR = "`fa4-precompile doctor` says what this machine has"


@dataclass(frozen=True)
class ExportedKernel:
    """A kernel of the spec.

    Attributes:
        kernel: its id in the cache; empty if it is not there.
        slot: the provider's compile cache that looks it up.
        label: which it is, in words.
        runtime_env: variables that a job sets, else it does not look it up.
        files: where the provider finds it, relative to the folder; several if calls of one key are looked for apart.
        reason: why a job does not find it, or not in all calls; empty if it does.
    """

    kernel: str
    slot: str
    label: str
    runtime_env: Mapping[str, str]
    files: Sequence[str]
    reason: str

    def render(self) -> dict[str, object]:
        """Return the fields as JSON."""
        return {
            "kernel": self.kernel,
            "slot": self.slot,
            "label": self.label,
            "runtime_env": dict(self.runtime_env),
            "files": list(self.files),
            "reason": self.reason,
        }


@dataclass(frozen=True)
class StockExport:
    """What was written, and tried.

    Attributes:
        folder: what a job is to be given.
        environment: the variables that a job sets, to have its cache there.
        conditions: what must be the same in a job as it is here.
        facts: what of the device is compiled into kernels and in none of the provider's names: `sms`, or nothing.
        broken: calls that could not be asked about, with what went wrong.
    """

    spec: str
    target: Target
    folder: Path
    python: str
    environment: Mapping[str, str]
    conditions: Sequence[str]
    facts: Mapping[str, int]
    kernels: Sequence[ExportedKernel]
    excluded: Sequence[Excluded]
    broken: Sequence[str]
    bytes: int

    @property
    def unmet(self) -> Sequence[ExportedKernel]:
        """The kernels that a job does not find."""
        return [kernel for kernel in self.kernels if kernel.reason]

    def render(self) -> dict[str, object]:
        """Return the fields as JSON."""
        return {
            "spec": self.spec,
            "target": self.target.render(),
            "folder": str(self.folder),
            "python": self.python,
            "environment": dict(self.environment),
            "conditions": list(self.conditions),
            "facts": dict(self.facts),
            "kernels": [kernel.render() for kernel in self.kernels],
            "excluded": [excluded.render() for excluded in self.excluded],
            "broken": list(self.broken),
            "bytes": self.bytes,
        }


def export_stock(
    root: Root, spec: Spec, target: Target, toolchain: Toolchain, folder: Path, note: Callable[[str], None], jobs: int
) -> StockExport:
    """Write the kernels of a spec for a target into a new folder, as the provider's own disk cache.

    The folder appears when it is complete and has been tried. It must not be there, or be empty: names there say
    nothing of the target, so that two exports in one folder could take each other's place.

    `note` is told how it goes.

    Raises `UsageError` for a provider that has no such cache, or a folder that holds something, `MachineError` if this
    machine can't do it, and what `make_plan` and `find_planned` raise.
    """
    disk = spec.provider.disk_cache
    if disk is None:
        hint = "a job of that package needs the loader: `fa4-precompile run`"
        raise UsageError(f"`{spec.provider.package}` has no disk cache that can be filled from outside", hint)
    require_native(target, "what loads a kernel there is compiled by this machine's compiler")
    require_buildable(target)
    with _new_folder(folder) as work:
        with Compilers(spec.provider, target, toolchain, jobs) as compilers:
            note(f"asking {toolchain.provider} about {count(len(spec.variants), 'call')}")
            plan = make_plan(spec, compilers)
            calls = _calls(plan)
            places = entries(compilers, disk, work, calls)
        records = {_identity(planned): find_planned(root, toolchain, target, planned) for planned in plan.kernels}
        note(f"writing {count(sum(record is not None for record in records.values()), 'kernel')}")
        written = sum(
            _write(work, _blob(root, record), record, _found(places.get(identity, set())))
            for identity, record in records.items()
            if record is not None
        )
        note("trying them in a new process, without a compiler")
        with Compilers(spec.provider, target, toolchain, jobs) as fresh:
            refused = tried(fresh, disk, work, calls)
    facts = {
        name: value for record in records.values() if record is not None for name, value in record.device_facts.items()
    }
    return StockExport(
        spec=spec.name,
        target=target,
        folder=folder,
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        environment=disk.environment(folder),
        conditions=disk.conditions,
        facts=facts,
        kernels=[
            _exported(planned, records[_identity(planned)], places.get(_identity(planned), set()), refused)
            for planned in plan.kernels
        ],
        excluded=plan.excluded,
        broken=[f"{variant}: {report.strip().splitlines()[-1]}" for variant, report in plan.broken],
        bytes=written,
    )


def _identity(planned: PlannedKernel) -> Identity:
    return planned.reached.identity


def _calls(plan: Plan) -> dict[Environment, list[Call]]:
    """Return the calls of a plan by what the job sets for them: each, as those of one key can have several names."""
    calls = dict.fromkeys([*(call for call, _ in plan.calls), *(planned.call for planned in plan.kernels)])
    ordered = sorted(calls, key=lambda call: call.environment)
    return {env: list(group) for env, group in itertools.groupby(ordered, lambda call: call.environment)}


def entries(
    compilers: Compilers, disk: DiskCache, folder: Path, calls: Mapping[Environment, Sequence[Call]]
) -> dict[Identity, set[DiskEntry | NoEntry]]:
    """Return where the provider looks for each key. Importing it makes the folders of its slots."""
    futures = [
        compilers.pool(with_cache(environment, disk, folder)).submit(
            disk_entries, compilers.pinned, disk, folder, group
        )
        for environment, group in calls.items()
    ]
    found: dict[Identity, set[DiskEntry | NoEntry]] = {}
    try:
        for future in futures:
            for identity, places in future.result().items():
                found.setdefault(identity, set()).update(places)
    except TaskFailed as error:
        raise MachineError(f"the provider could not be asked where it looks: {error}", _DOCTOR) from None
    return _told_apart(found)


def _told_apart(entries: Mapping[Identity, set[DiskEntry | NoEntry]]) -> dict[Identity, set[DiskEntry | NoEntry]]:
    """Return where keys are looked for, but nothing of kernels that the provider would mix up with each other."""
    holders = Counter(entry.file for those in entries.values() for entry in _found(those))
    mixed = {file for file, number in holders.items() if number > 1}
    return {
        identity: {NoEntry(_MIXED_UP) if isinstance(one, DiskEntry) and one.file in mixed else one for one in those}
        for identity, those in entries.items()
    }


def tried(
    compilers: Compilers, disk: DiskCache, folder: Path, calls: Mapping[Environment, Sequence[Call]]
) -> dict[Identity, str]:
    """Return which keys the provider does not find in the folder, or can't load, and why."""
    futures = [
        compilers.pool(with_cache(environment, disk, folder)).submit(disk_lookups, compilers.pinned, group)
        for environment, group in calls.items()
    ]
    try:
        looked = [one for future in futures for one in future.result()]
    except TaskFailed as error:
        raise MachineError(f"what was written could not be tried: {error}", _DOCTOR) from None
    answered = {one.kernel: "" for one in looked}
    return answered | {one.kernel: one.reason for one in looked if one.reason}


def with_cache(environment: Environment, disk: DiskCache, folder: Path) -> Environment:
    """Return what a job sets, and the variables by which it has its own cache in a folder."""
    return tuple(sorted({**dict(environment), **disk.environment(folder)}.items()))


def _blob(root: Root, record: Record) -> bytes:
    """Return the verified blob of a kernel that was there a moment ago."""
    found = root.find(record.toolchain, record.id)
    if isinstance(found, Miss):
        raise CacheError(str(root.path), f"kernel {record.id[:12]} is gone meanwhile: {found.detail}", "export again")
    return found.blob


def _found(places: set[DiskEntry | NoEntry]) -> list[DiskEntry]:
    return sorted((one for one in places if isinstance(one, DiskEntry)), key=lambda one: one.file)


def _write(folder: Path, blob: bytes, record: Record, entries: Sequence[DiskEntry]) -> int:
    """Write a kernel wherever it is looked for, and return how many bytes that are.

    The lock's file is written, too: a job makes it else, even to read, and fails where it may not write.
    """
    made: dict[str, bytes] = {}
    for entry in entries:
        if entry.symbol not in made:
            made[entry.symbol] = forwarding_object(blob, record.blob, record.symbol, entry.symbol)
        for name, content, mode in ((entry.file, made[entry.symbol], 0o444), (entry.lock, b"", 0o644)):
            path = folder / name
            with _writing(path):
                path.write_bytes(content)
                path.chmod(mode)
    return sum(len(made[entry.symbol]) for entry in entries)


def _exported(
    planned: PlannedKernel, record: Record | None, entries: set[DiskEntry | NoEntry], refused: Mapping[Identity, str]
) -> ExportedKernel:
    reasons = [entry.reason for entry in entries if isinstance(entry, NoEntry)]
    if record is None:
        reasons.append("the cache does not have it; `fa4-precompile build` makes it")
    if not reasons:
        reasons += filter(None, [refused.get(_identity(planned), "no call has looked it up")])
    files = [] if record is None else [entry.file for entry in _found(entries)]
    return ExportedKernel(
        kernel=record.id if record is not None else "",
        slot=planned.reached.slot,
        label=planned.label,
        runtime_env=dict(planned.call.environment),
        files=files,
        reason="; ".join(reasons),
    )


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Make a folder under another name, and give it its own when the block has ended well."""
    with _writing(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"`{folder}` is there and not empty", "name a new folder: an export replaces nothing")
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield work
        with _writing(folder):
            for path in [work, *(path for path in work.rglob("*") if path.is_dir())]:
                path.chmod(0o755)  # of any umask, as jobs of other users read it
            work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MachineError(f"`{path}` can't be written: {error.strerror or error}", "name another folder") from None

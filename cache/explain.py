"""Why a job found no kernel, for people: what the cache has instead, and what differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .device import Device
from .key import KeyText
from .record import Record
from .resolve import Cache
from .store import Miss, MissReason

_MOST_SHOWN = 3
_MOST_DIFFERENCES = 6
_NOTHING = "(nothing)"
# What of a variant is no part of a call: demands, settings, and sizes that most kernels don't depend on.
_BESIDE_THE_CALL = ("tile", "cluster_size", "backend", "job_env", "shape")


@dataclass(frozen=True)
class Described:
    """A call in the words of a spec.

    Attributes:
        lines: the entry that enumerates it; or a comment, if no axis says it.
        axes: its axes by name, as a record has them; None if not all of the call can be told.
    """

    lines: str = ""
    axes: Mapping[str, object] | None = None


@dataclass(frozen=True)
class Explanation:
    """Why there is no kernel.

    Attributes:
        reason: the reason that says most.
        details: sentences, the most telling first.
        nearest: the kernels that differ least, and in what, `NAME there -> here`.
        missing_env: variables that the job would have to set for the kernel that this call finds with them.
    """

    reason: MissReason
    details: Sequence[str]
    nearest: Sequence[str] = ()
    missing_env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Candidate:
    record: Record
    unfit: Sequence[str]
    differences: Sequence[tuple[str, object, object]]
    lacks: Mapping[str, str]


def explain(
    cache: Cache,
    miss: Miss,
    slot: str,
    key: KeyText | None,
    key_fields: Mapping[str, object],
    environment: Mapping[str, str],
    axes: Mapping[str, object] | None = None,
) -> Explanation:
    """Look through the records of all roots for what is nearest to a key that was not found.

    `key` is None if it can't be written down; `environment` is the job's; `axes` are the call's, if they are known.
    """
    details = list(dict.fromkeys(_detail(one) for one in (miss, *miss.others)))
    if miss.reason in (MissReason.KEY, MissReason.DEVICE):
        return Explanation(miss.reason, details)
    candidates = [
        _Candidate(record, unfit, _differences(record, key_fields), _lacking(record, environment))
        for record, unfit in cache.catalog
        if record.slot == slot
    ]
    same = [candidate for candidate in candidates if candidate.record.key == key]
    device = cache.device
    # The one that comes nearest to running here says why: its toolchain fits, then its arch.
    same.sort(key=lambda candidate: (len(candidate.unfit), _elsewhere(candidate, device)))
    for candidate in same:
        found = _mismatch(candidate, device)
        if found and miss.reason is MissReason.ABSENT:
            miss = found
            details.insert(0, found.detail)
    candidates = [candidate for candidate in candidates if candidate not in same]
    candidates.sort(key=lambda candidate: (len(candidate.differences), len(candidate.unfit), candidate.record.id))
    nearest = candidates[:_MOST_SHOWN]
    if candidates and miss.reason is MissReason.ABSENT and all(_elsewhere(one, device) for one in candidates):
        miss = _of_another_arch(nearest[0].record, device)
        details.insert(0, miss.detail)
    missing_env: Mapping[str, str] = {}
    fitting = [candidate for candidate in candidates if _mismatch(candidate, device) is None]
    if miss.reason is MissReason.ABSENT and (setting := _settings(fitting, axes)):
        record, missing_env = setting
        names = ", ".join(f"{name}={value}" for name, value in missing_env.items())
        miss = Miss(MissReason.ENVIRONMENT, f"kernel {record.id[:12]} is for jobs that set {names}")
        details.insert(0, miss.detail)
    if not candidates and not same:
        details.append(f"no root has any kernel of slot `{slot}`")
    return Explanation(miss.reason, details, [_line(one) for one in [*same, *nearest][:_MOST_SHOWN]], missing_env)


def _settings(
    candidates: Sequence[_Candidate], axes: Mapping[str, object] | None
) -> tuple[Record, Mapping[str, str]] | None:
    """Return the kernel that would be found if the job set some variables, and these; None if there is none.

    Some are in the key itself, by their name (`FA_LOG_LEVEL`); others make the provider choose another kernel for the
    very same call, and are in its record.
    """
    if not candidates:
        return None
    there = {name: value for name, value, _ in candidates[0].differences}
    if there and all(name.isupper() for name in there):
        return candidates[0].record, {name: _text(value) for name, value in there.items()}
    for candidate in candidates:
        if candidate.lacks and axes is not None and _call(candidate.record.variant) == _call(axes):
            return candidate.record, candidate.lacks
    return None


def _call(axes: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in axes.items() if name not in _BESIDE_THE_CALL}


def _detail(miss: Miss) -> str:
    return f"`{miss.path}` is not trusted: {miss.detail}" if miss.path else miss.detail


def _elsewhere(candidate: _Candidate, device: Device) -> bool:
    return candidate.record.target.arch != device.arch


def _mismatch(candidate: _Candidate, device: Device) -> Miss | None:
    """Return what keeps a kernel of the very key from being used."""
    record = candidate.record
    if candidate.unfit:
        what = "; ".join(candidate.unfit)
        return Miss(MissReason.TOOLCHAIN, f"kernel {record.id[:12]} was built for another installation: {what}")
    if record.target.arch != device.arch:
        return _of_another_arch(record, device)
    if record.facts.get("sms", device.sms) != device.sms:
        there = record.facts["sms"]
        return Miss(
            MissReason.SM_COUNT, f"kernel {record.id[:12]} is for GPUs with {there} SMs; this one has {device.sms}"
        )
    return None


def _of_another_arch(record: Record, device: Device) -> Miss:
    return Miss(MissReason.ARCH, f"kernel {record.id[:12]} is for {record.target.arch}; this GPU is {device.arch}")


def _differences(record: Record, key_fields: Mapping[str, object]) -> list[tuple[str, object, object]]:
    """Return (position, the record's, ours) for each position that differs."""
    theirs = record.key_fields
    return [
        (name, theirs.get(name, _NOTHING), key_fields.get(name, _NOTHING))
        for name in dict.fromkeys([*key_fields, *theirs])
        if theirs.get(name, _NOTHING) != key_fields.get(name, _NOTHING)
    ]


def _lacking(record: Record, environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in record.runtime_env.items() if environment.get(name) != value}


def _line(candidate: _Candidate) -> str:
    differences = candidate.differences[:_MOST_DIFFERENCES]
    shown = [f"{name} {_text(theirs)} -> {_text(ours)}" for name, theirs, ours in differences]
    if len(candidate.differences) > len(shown):
        shown.append(f"and {len(candidate.differences) - len(shown)} more")
    record = candidate.record
    what = ", ".join(shown) or "the same key"
    return f"{record.id[:12]} for {record.target.arch}: {what}"


def _text(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_text, value))}]"
    return str(value)

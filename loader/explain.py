"""Why a job found no kernel, for people: what the cache has instead, and what differs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from ..cache.compared import PROVIDER_SOURCE
from ..cache.description import Description
from ..cache.key import KeyText
from ..cache.origin import Origin
from ..cache.outcome import Miss, MissReason
from ..cache.record import Record
from ..providers.dsl.driver import Device
from ..providers.foreign import foreign_files, foreign_words
from .resolve import Cache

_MOST_SHOWN = 3
_MOST_DIFFERENCES = 6
_MOST_LETTERS = 40
_NOTHING = "(nothing)"
_DIGEST = re.compile("[0-9a-f]{64}")


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
    origin: Origin | None
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
    modifiers: Mapping[str, Description] = MappingProxyType({}),
) -> Explanation:
    """Look through the records of all roots for what is nearest to a key that was not found.

    `key` is None if it can't be written down; `environment` is the job's; `axes` are the call's, if they are known;
    `modifiers` are the functions in the key.
    """
    details = list(dict.fromkeys(_detail(one) for one in (miss, *miss.others)))
    if miss.reason in (MissReason.FUNCTION, MissReason.KEY, MissReason.DEVICE):
        return Explanation(miss.reason, details)
    device = cache.device
    candidates = [
        _Candidate(record, origin, unfit, _differences(record, key_fields), _lacking(origin, environment))
        for record, origin, unfit in cache.catalog
        if record.slot == slot
    ]
    # The one that comes nearest to running here says why: its toolchain fits, then its arch.
    same = sorted(
        (candidate for candidate in candidates if candidate.record.key == key),
        key=lambda candidate: (len(candidate.unfit), _elsewhere(candidate, device)),
    )
    others = sorted(
        (candidate for candidate in candidates if candidate.record.key != key),
        key=lambda candidate: (len(candidate.differences), len(candidate.unfit), candidate.record.id),
    )
    setting = _setting(cache, others, axes)
    if miss.reason is MissReason.ABSENT and (telling := _more_telling(same, others, setting, device, modifiers)):
        miss = telling
        details.insert(0, telling.detail)
    if any(PROVIDER_SOURCE in detail for detail in details) and (foreign := foreign_files(cache.provider.package)):
        details.append(f"others have put files into `{cache.provider.package}` here: {foreign_words(foreign)}")
    if not candidates:
        details.append(f"no root has any kernel of slot `{slot}`")
    nearest = [_line(candidate) for candidate in [*same, *others][:_MOST_SHOWN]]
    missing_env = setting.variables if setting and miss.reason is MissReason.ENVIRONMENT else {}
    return Explanation(miss.reason, details, nearest, missing_env)


@dataclass(frozen=True)
class _Setting:
    """A kernel that would be found if the job set some variables."""

    record: Record
    variables: Mapping[str, str]


def _more_telling(
    same: Sequence[_Candidate],
    others: Sequence[_Candidate],
    setting: _Setting | None,
    device: Device,
    modifiers: Mapping[str, Description],
) -> Miss | None:
    """Return what says more than that there is no record: the first of these that is so, or None."""
    for candidate in same:
        if found := _mismatch(candidate, device) or _of_other_functions(candidate.record, modifiers):
            return found
    if others and all(_elsewhere(candidate, device) for candidate in others):
        return _of_another_arch(others[0].record, device)
    if setting:
        names = ", ".join(f"{name}={value}" for name, value in setting.variables.items())
        return Miss(MissReason.ENVIRONMENT, f"kernel {setting.record.id[:12]} is for jobs that set {names}")
    return None


def _setting(cache: Cache, candidates: Sequence[_Candidate], axes: Mapping[str, object] | None) -> _Setting | None:
    """Return the kernel that would be found if the job set some variables, and these; None if there is none.

    Some are in the key itself, by their name (`FA_LOG_LEVEL`); others make the provider choose another kernel for the
    very same call, and are known of its origin.
    """
    fitting = [candidate for candidate in candidates if _mismatch(candidate, cache.device) is None]
    if not fitting:
        return None
    there = {name: value for name, value, _ in fitting[0].differences}
    if there and all(map(cache.provider.is_variable, there)):
        return _Setting(fitting[0].record, {name: _text(value) for name, value in there.items()})
    beside = cache.provider.beside_the_call
    for candidate in fitting:
        if not candidate.lacks or candidate.origin is None or axes is None:
            continue
        if _call(candidate.origin.variant, beside) == _call(axes, beside):
            return _Setting(candidate.record, candidate.lacks)
    return None


def _call(axes: Mapping[str, object], beside: Sequence[str]) -> dict[str, object]:
    return {name: value for name, value in axes.items() if name not in beside}


def _detail(miss: Miss) -> str:
    return f"`{miss.path}` is not trusted: {miss.detail}" if miss.path else miss.detail


def _elsewhere(candidate: _Candidate, device: Device) -> bool:
    return candidate.record.arch != device.arch


def _mismatch(candidate: _Candidate, device: Device) -> Miss | None:
    """Return what keeps a kernel of the very key from being used."""
    record = candidate.record
    if candidate.unfit:
        what = "; ".join(candidate.unfit)
        return Miss(MissReason.TOOLCHAIN, f"kernel {record.id[:12]} was built for another installation: {what}")
    if record.arch != device.arch:
        return _of_another_arch(record, device)
    if record.facts.get("sms", device.sms) != device.sms:
        there = record.facts["sms"]
        return Miss(
            MissReason.SM_COUNT, f"kernel {record.id[:12]} is for GPUs with {there} SMs; this one has {device.sms}"
        )
    return None


def _of_other_functions(record: Record, modifiers: Mapping[str, Description]) -> Miss | None:
    """Return in what the functions that were compiled into a kernel of the very key differ from the job's."""
    other = [name for name in modifiers if record.modifiers.get(name) != modifiers[name]]
    if not other:
        return None
    what = "; ".join(_difference(name, record.modifiers.get(name, Description(())), modifiers[name]) for name in other)
    return Miss(MissReason.FUNCTION, f"kernel {record.id[:12]} is for a function that does something else: {what}")


def _difference(name: str, there: Description, here: Description) -> str:
    found = there.differences(here)
    shown = [f"`{where or name}` is {_short(theirs)} there, {_short(ours)} here" for where, theirs, ours in found[:3]]
    more = [f"and {len(found) - 3} more"] if len(found) > 3 else []
    return f"of `{name}`, {', '.join([*shown, *more])}"


def _short(what: str) -> str:
    if not what:
        return "nothing"
    return f"`{what}`" if len(what) <= _MOST_LETTERS else f"`{what[:_MOST_LETTERS]}...`"


def _of_another_arch(record: Record, device: Device) -> Miss:
    return Miss(MissReason.ARCH, f"kernel {record.id[:12]} is for {record.arch}; this GPU is {device.arch}")


def _differences(record: Record, key_fields: Mapping[str, object]) -> list[tuple[str, object, object]]:
    """Return (position, the record's, ours) for each position that differs."""
    theirs = record.key_fields
    return [
        (name, theirs.get(name, _NOTHING), key_fields.get(name, _NOTHING))
        for name in dict.fromkeys([*key_fields, *theirs])
        if theirs.get(name, _NOTHING) != key_fields.get(name, _NOTHING)
    ]


def _lacking(origin: Origin | None, environment: Mapping[str, str]) -> dict[str, str]:
    wanted = origin.runtime_env if origin else {}
    return {name: value for name, value in wanted.items() if environment.get(name) != value}


def _line(candidate: _Candidate) -> str:
    differences = candidate.differences[:_MOST_DIFFERENCES]
    shown = [f"{name} {_brief(theirs)} -> {_brief(ours)}" for name, theirs, ours in differences]
    if len(candidate.differences) > len(shown):
        shown.append(f"and {len(candidate.differences) - len(shown)} more")
    record = candidate.record
    what = ", ".join(shown) or "the same key"
    return f"{record.id[:12]} for {record.arch}: {what}"


def _brief(value: object) -> str:
    """Return a value as text, a digest by its first digits."""
    text = _text(value)
    return text[:12] if _DIGEST.fullmatch(text) else text


def _text(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_text, value))}]"
    return str(value)

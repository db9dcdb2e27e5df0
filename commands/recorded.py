"""`spec from-record`: a spec of what jobs looked up. `spec diff`: what two specs or recordings reach."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..cache.recording import Lookup, Served
from ..cache.target import Target
from ..errors import MachineError, UsageError
from ..precompile.compile.compilers import Compilers
from ..precompile.compile.pool import default_jobs
from ..precompile.plan import Plan, make_plan
from ..precompile.recorded.made import Lookups, Made, make
from ..precompile.recorded.reading import Recorded, Recordings, identity_of, read_recordings
from ..precompile.recorded.writing import spec_text, written_target
from ..precompile.spec.spec import Spec, parse_spec, target_book
from ..providers.call import Identity
from ..providers.installed import installed_toolchain
from ..providers.protocol import Provider
from ..providers.registry import find_provider
from ..text.words import count, one_line
from .inputs import spec_and_targets
from .output import conclude, note, note_lines, print_json, print_lines

_MOST_SHOWN = 8
_STDOUT = "the recorded spec"


def from_record(
    places: Sequence[Path], closure: bool, target_name: str | None, module: str | None, jobs: int | None, as_json: bool
) -> None:
    """Print the spec of recordings; what of them it can't have is said on standard error, and ends with 1."""
    recordings = read_recordings(places)
    _note_files(recordings)
    lookups = _lookups_of(recordings, module)
    lookups, recorded_target = _of_one_target(lookups, target_name)
    provider = _provider(lookups[0][0].served[lookups[0][1].package])
    toolchain = installed_toolchain(provider)
    others = _other_releases(lookups, toolchain.provider_source)
    name = _shipped_name(recorded_target)
    target = recorded_target if name is None else target_book().get(name)
    note(f"asking {toolchain.provider} {toolchain.provider_version} about the calls of {_many(lookups)}")
    with Compilers(provider, target, toolchain, jobs or default_jobs()) as compilers:
        made = make(lookups, provider, compilers, bool(others), closure)
        if not made.entries:
            note_lines(_unreached_lines(made))
            raise UsageError("no call of these recordings can be said by a spec", "see docs/how-to/callers.md")
        text = spec_text(made, provider, written_target(target, name), _comments(lookups, made, target, others))
        planned = make_plan(parse_spec(_STDOUT, text, target_book()), compilers)
    reached = frozenset(kernel.reached.identity for kernel in planned.kernels)
    missing, more = made.wanted - reached, reached - made.wanted
    if as_json:
        print_json(_document(text, recordings, made, missing, more))
    else:
        print_lines(text.splitlines())
    if others:
        note(f"recorded with {', '.join(others)}, planned with {toolchain.provider_version}: {_drift(made)}")
    note_lines(_unreached_lines(made))
    note(_account(made, planned, missing, more))
    conclude(bool(recordings.findings or missing or made.unreached))


def _note_files(recordings: Recordings) -> None:
    note_lines(f"warning: {finding}" for finding in recordings.findings)
    incomplete = recordings.incomplete
    for one in incomplete[:_MOST_SHOWN]:
        note(f"incomplete: {one.process} did not end by itself, or runs still; what it wrote is used (`{one.file}`)")
    if len(incomplete) > _MOST_SHOWN:
        note(f"incomplete: and {len(incomplete) - _MOST_SHOWN} more processes")


def _lookups_of(recordings: Recordings, module: str | None) -> Lookups:
    """Return the lookups of one package. Raises `UsageError` if there are none, or several packages."""
    found = [(recorded, lookup) for recorded in recordings.processes for lookup in recorded.lookups]
    packages = sorted({lookup.package for _, lookup in found})
    if module is not None:
        found = [(recorded, lookup) for recorded, lookup in found if lookup.package == module]
    elif len(packages) > 1:
        raise UsageError(
            f"these recordings are of several packages: {', '.join(packages)}",
            "a spec is of one: name it with `--module`",
        )
    if not found:
        what = f" of `{module}`" if module else ""
        raise UsageError(
            f"no kernel{what} was looked up in these recordings", "has the job made calls of the provider's?"
        )
    return found


def _of_one_target(lookups: Lookups, name: str | None) -> tuple[Lookups, Target]:
    """Return the lookups for one device. Raises `UsageError` if there are several, and none is named."""
    by_target: dict[Target, list[tuple[Recorded, Lookup]]] = {}
    for recorded, lookup in lookups:
        target = replace(recorded.served[lookup.package].target, name="recorded")
        by_target.setdefault(target, []).append((recorded, lookup))
    names = {target: _shipped_name(target) or f"{target.arch} with {target.sms} SMs" for target in by_target}
    chosen = [target for target in by_target if name in (None, names[target])]
    if len(chosen) != 1:
        what = ", ".join(sorted(names.values()))
        hint = "a spec has the kernels of each target for all its calls: name one with `--target`"
        raise UsageError(f"these recordings are for {what}", hint)
    return by_target[chosen[0]], chosen[0]


def _shipped_name(target: Target) -> str | None:
    """Return the name of the shipped profile that a device is."""
    book = target_book()
    for name, profile in book.profiles.items():
        facts = profile.arch, profile.sms, profile.cuda, profile.machine or target.machine
        if facts == (target.arch, target.sms, target.cuda, target.machine):
            return name
    return None


def _provider(served: Served) -> Provider:
    provider = find_provider(served.provider)
    if provider is None:
        raise MachineError(f"provider `{served.provider}` of this recording is not installed here", "install it")
    return provider if provider.package == served.package else provider.under(served.package)


def _other_releases(lookups: Lookups, source: str) -> list[str]:
    served = {recorded.served[lookup.package] for recorded, lookup in lookups}
    return sorted({f"{one.provider} {one.version}" for one in served if one.source != source})


def _many(lookups: Lookups) -> str:
    hosts = {recorded.process.host for recorded, _ in lookups}
    files = {recorded.file for recorded, _ in lookups}
    return f"{len(files)} {'process' if len(files) == 1 else 'processes'} on {count(len(hosts), 'host')}"


def _comments(lookups: Lookups, made: Made, target: Target, others: Sequence[str]) -> list[str]:
    served = lookups[0][0].served[lookups[0][1].package]
    dates = sorted({recorded.process.started[:10] for recorded, _ in lookups})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    whose = ", ".join(others) or f"{served.provider} {served.version}"
    lines = [f"Recorded {when} of {_many(lookups)}: {count(len(made.wanted), 'kernel')} of {whose} for {target.arch}."]
    if made.unreached:
        lines += ["Not in this spec, as no axis says these calls (docs/how-to/callers.md):"]
        lines += [f"  {line}" for line in _unreached_lines(made)]
    return lines


def _unreached_lines(made: Made) -> list[str]:
    return [
        f"{count(one.kernels, 'kernel')} not reached, first of {one.first.process}: {one.reason}"
        for one in made.unreached
    ]


def _drift(made: Made) -> str:
    gone, new = len(made.gone), len(made.wanted - made.gone)
    return f"no call looks up {count(gone, 'recorded kernel')} now, they look up {count(new, 'kernel')} instead"


def _account(made: Made, planned: Plan, missing: frozenset[Identity], more: frozenset[Identity]) -> str:
    calls = f"{count(len(made.entries), 'entry').replace('entrys', 'entries')}, {count(len(planned.calls), 'call')}"
    parts = [f"{len(made.wanted - missing)} of {count(len(made.wanted), 'recorded kernel')}"]
    parts.append(f"and {len(more)} more" if more else "and none more")
    return f"{calls}; they reach {' '.join(parts)}"


def _document(
    text: str, recordings: Recordings, made: Made, missing: frozenset[Identity], more: frozenset[Identity]
) -> Mapping[str, object]:
    return {
        "spec": text,
        "processes": len(recordings.processes),
        "incomplete": [str(one.file) for one in recordings.incomplete],
        "findings": recordings.findings,
        "recorded": len(made.wanted),
        "missing": len(missing),
        "more": len(more),
        "unreached": [{"reason": one.reason, "kernels": one.kernels} for one in made.unreached],
    }


def diff(one: str, other: str, target_name: str | None, jobs: int | None, as_json: bool) -> None:
    """Print which kernels two specs or recordings don't have in common; if there are any, end with 1."""
    sides = [_side(name, target_name, jobs or default_jobs()) for name in (one, other)]
    (first, second), both = sides, sides[0].keys() & sides[1].keys()
    only = [[label for identity, label in side.items() if identity not in both] for side in sides]
    if as_json:
        print_json({"both": len(both), "only": {one: only[0], other: only[1]} if one != other else {}})
    else:
        print_lines(_diff_lines(one, only[0]))
        print_lines(_diff_lines(other, only[1]))
        note(
            f"{count(len(both), 'kernel')} in both, {len(first) - len(both)} only in {one}, {len(second) - len(both)} "
            f"only in {other}"
        )
    conclude(any(only))


def _diff_lines(name: str, labels: Iterable[str]) -> list[str]:
    return [f"only in {name}: {label}" for label in labels]


def _side(name: str, target_name: str | None, jobs: int) -> Mapping[Identity, str]:
    """Return the kernels of a spec or of a recording, and what each is called."""
    place = Path(name)
    if place.is_dir() or name.endswith(".jsonl"):
        lookups, _ = _of_one_target(_lookups_of(read_recordings([place]), None), target_name)
        return {
            identity_of(lookup.slot, lookup.key, lookup.facts): f"{lookup.slot} of {_call(lookup)}"
            for _, lookup in reversed(lookups)
            if lookup.key
        }
    spec, targets = spec_and_targets(name, target_name)
    if len(targets) != 1:
        raise UsageError(f"`{name}` names several targets", "name one with `--target`")
    return _planned(spec, targets[0], jobs)


def _planned(spec: Spec, target: Target, jobs: int) -> Mapping[Identity, str]:
    toolchain = installed_toolchain(spec.provider)
    note(f"asking {spec.provider.name} about {count(len(spec.variants), 'call')}")
    with Compilers(spec.provider, target, toolchain, jobs) as compilers:
        planned = make_plan(spec, compilers)
    return {kernel.reached.identity: kernel.label for kernel in planned.kernels}


def _call(lookup: Lookup) -> str:
    return one_line(lookup.axes) if lookup.axes else "a call that no axis says"

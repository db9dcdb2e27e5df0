"""Which calls a canary makes: those that builds have made kernels for, as far as they can run on the device here."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..cache.key import KernelId
from ..cache.manifest import Manifest
from ..cache.record import Record
from ..cache.store import Root
from ..loader.resolve import Cache
from ..providers.call import Call, Variant
from ..providers.dsl.driver import Device
from ..providers.protocol import Provider
from ..text.yaml_source import read_yaml

Identity = tuple[str, KernelId]
"""Toolchain and id of a kernel."""


@dataclass(frozen=True)
class Due:
    """A call that is to be made.

    Attributes:
        spec: name of the spec that has it.
        variant: its axes, as a manifest has them.
        runtime_env: variables that are to be set before the provider is imported.
        kernels: those that the call is the first of its build to reach, and that the device here can take.
    """

    spec: str
    variant: Mapping[str, object]
    runtime_env: Mapping[str, str]
    kernels: Sequence[Identity]


@dataclass(frozen=True)
class Found:
    """What there is to do.

    Attributes:
        calls: those to make, of one environment after the other.
        records: the kernels of the cache.
        elsewhere: kernels of builds that another device takes.
        loose: kernels that no build names, so that nobody knows which call reaches them.
    """

    calls: Sequence[Due]
    records: Mapping[Identity, Record]
    elsewhere: int
    loose: int

    def sample(self, number: int, seed: int) -> Found:
        """Return the same with so many calls, chosen by chance; the same for the same seed."""
        if number >= len(self.calls):
            return self
        places = sorted(random.Random(seed).sample(range(len(self.calls)), number))
        return replace(self, calls=[self.calls[place] for place in places])


def find_due(root: Root, cache: Cache, spec_digest: str | None) -> Found:
    """Return the calls of the builds that fit what is installed here, of one spec if one is named.

    Raises `MachineError` if there is no device, or something is not installed.
    """
    device = cache.device
    records = {(item.toolchain, item.id): item for item in root.records() if isinstance(item, Record)}
    calls: list[Due] = []
    named: set[Identity] = set()
    due: set[Identity] = set()
    manifests = [item for item in root.manifests() if isinstance(item, Manifest)]
    named.update((manifest.toolchain, kernel) for manifest in manifests for kernel in manifest.kernels)
    for _, manifest in _for_device(cache, device):
        if spec_digest is not None and manifest.spec_digest != spec_digest:
            continue
        for call in manifest.calls:
            own = [(manifest.toolchain, kernel) for kernel in call.kernels]
            # One whose record can't be read is due, too: the loader says what is wrong with it.
            fitting = [one for one in own if one not in due and (one not in records or _is_for(records[one], device))]
            if fitting:
                due.update(fitting)
                calls.append(Due(manifest.spec, call.variant, call.runtime_env, fitting))
    # Each environment is a process of its own.
    calls.sort(key=lambda call: sorted(call.runtime_env.items()))
    elsewhere = sum(1 for one in named - due if one in records and not _is_for(records[one], device))
    return Found(calls, records, elsewhere, len(records.keys() - named))


def _for_device(cache: Cache, device: Device) -> list[tuple[Root, Manifest]]:
    """Return the builds of the device's arch; those for its number of SMs, whose selection it shares, first."""
    found = [one for one in cache.fitting_manifests() if one[1].target.arch == device.arch]
    return sorted(found, key=lambda one: (one[1].target.sms != device.sms, one[1].spec))


def _is_for(record: Record, device: Device) -> bool:
    return record.arch == device.arch and record.facts.get("sms", device.sms) == device.sms


def ways(provider: Provider, due: Due) -> list[Call]:
    """Return how the provider can be called for what is due, with the variables that are set for it."""
    variant = variant_of(provider, due.variant)
    return [call for call in provider.calls(variant) if dict(call.environment) == dict(due.runtime_env)]


def variant_of(provider: Provider, rendered: Mapping[str, object]) -> Variant:
    """Return the call that a manifest has by its axes. Raises `SpecError` for axes that the provider does not have."""
    values = read_yaml("a manifest", json.dumps(dict(rendered))).mapping(provider.axes, "a call")
    point: dict[str, object] = {name: axis.default for name, axis in provider.axes.items()}
    for name, value in values.items():
        axis = provider.axes[name]
        parsed = axis.parse(value)
        point[name] = parsed[0] if axis.is_spread and isinstance(parsed, list) else parsed
    return provider.variant(point)

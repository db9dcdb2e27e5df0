"""Device profiles by name, from `kernel_specs/targets.yaml` and from specs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ...cache.target import MACHINES, Target, host_machine, sm_number
from ...errors import UsageError
from ...providers.axes import count
from ...text.yaml_source import Value, hint_for, read_yaml

_DEFAULT_CUDA = 13
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class Profile:
    """A profile as it is written, perhaps with gaps. None of `sms` or `machine` is "not known" and "any".

    `shown` says how far this project has gone with kernels for it: `run`, `loaded` (on such a host) or `compiled`.
    """

    name: str
    arch: str
    sms: int | None = None
    cuda: int = _DEFAULT_CUDA
    machine: str | None = None
    shown: str = ""

    def target(self) -> Target:
        """Return the profile complete. Raises `ValueError` if a fact is missing that nobody may guess."""
        if self.sms is None:
            raise ValueError(f"no source is known for the number of SMs of `{self.name}`")
        return Target(self.name, self.arch, self.sms, self.cuda, self.machine or host_machine())


class TargetBook:
    """The profiles of a `targets.yaml`. Raises `SpecError` if the file is wrong."""

    def __init__(self, path: Path) -> None:
        root = read_yaml(str(path), path.read_text(encoding="utf-8"))
        self.profiles: Mapping[str, Profile] = {
            name: self._profile(name, value, value.mapping((*_READ, "shown"), f"target `{name}`"), None)
            for name, value in root.mapping(None, "the list of targets").items()
        }

    def get(self, name: str) -> Target:
        """Return a target by its name. Raises `UsageError`."""
        if name not in self.profiles:
            raise UsageError(f"there is no target `{name}`", hint_for(name, self.profiles))
        try:
            return self.profiles[name].target()
        except ValueError as error:
            raise UsageError(str(error), f"give it in the spec: `targets: [{{base: {name}, sms: NUMBER}}]`") from None

    def parse(self, value: Value) -> Target:
        """Read an item of a spec's `targets`: a name, or `{base: NAME, sms: NUMBER, ...}`. Raises `SpecError`."""
        if not value.is_mapping:
            name = value.scalar()
            if not isinstance(name, str) or name not in self.profiles:
                raise value.error(f"there is no target {value.kind}", hint_for(str(name), self.profiles))
            return self._complete(value, self.profiles[name])
        fields = value.mapping(("name", "base", *_READ), "a target")
        base = None
        if "base" in fields:
            base_name = str(fields["base"].scalar())
            if base_name not in self.profiles:
                raise fields["base"].error(f"there is no target `{base_name}`", hint_for(base_name, self.profiles))
            base = self.profiles[base_name]
        name = fields["name"].scalar() if "name" in fields else base.name if base else None
        if not isinstance(name, str):
            raise value.error("a target needs a name", "add `name:` or `base:`")
        if not _NAME.fullmatch(name):  # it gets into names of files
            message = "the name of a target is of letters, digits, `-` and `_`, 64 at most"
            raise fields["name"].error(message)
        return self._complete(value, self._profile(name, value, fields, base))

    def _complete(self, value: Value, profile: Profile) -> Target:
        try:
            return profile.target()
        except ValueError as error:
            raise value.error(str(error), f"write `{{base: {profile.name}, sms: NUMBER}}`") from None

    def _profile(self, name: str, place: Value, fields: Mapping[str, Value], base: Profile | None) -> Profile:
        if base is None and "arch" not in fields:
            raise place.error(f"target `{name}` has no `arch`", "for example `arch: sm_100a`")
        start = replace(base, name=name, shown="") if base else Profile(name, arch="")
        read = {**_READ, "shown": _shown}
        return replace(start, **{field: read[field](fields[field]) for field in read if field in fields})


def _arch(value: Value) -> str:
    arch = value.scalar()
    try:
        sm_number(str(arch))
    except ValueError as error:
        raise value.error(str(error)) from None
    return str(arch)


def _machine(value: Value) -> str:
    machine = value.scalar()
    if machine in MACHINES:
        return str(machine)
    raise value.error(f"`machine` can't be {value.kind}", f"allowed: {', '.join(MACHINES)}")


def _shown(value: Value) -> str:
    shown = value.scalar()
    if shown in _SHOWN:
        return str(shown)
    raise value.error(f"`shown` can't be {value.kind}", f"allowed: {', '.join(_SHOWN)}")


_SHOWN = ("run", "loaded", "compiled")

_READ: Mapping[str, Callable[[Value], Any]] = MappingProxyType(
    {
        "arch": _arch,
        "sms": count("sms", 1, 1024),
        "cuda": count("cuda", 12, 13),
        "machine": _machine,
    }
)

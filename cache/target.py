"""What kernels are built for: a device profile. Data only; the names come from `kernel_specs/targets.yaml`."""

from __future__ import annotations

import platform
import re
from dataclasses import asdict, dataclass

from .codec import Fields
from .key import digest_json

_ARCH = re.compile(r"sm_([0-9]{1,4})[af]?")


@dataclass(frozen=True)
class Target:
    """A device profile, complete: nothing is guessed from the machine that builds.

    Attributes:
        name: as in `targets.yaml`, or as the user calls it.
        arch: the compile target, for example `sm_100a`.
        sms: streaming multiprocessors that a CUDA program sees. Persistent schedulers bake it into a kernel.
        cuda: CUDA major version of the job's torch. FA4 turns the 2-CTA forward off under CUDA 12.
        machine: processor of the host, as `uname -m` says. A blob holds host code.
    """

    name: str
    arch: str
    sms: int
    cuda: int
    machine: str

    @property
    def sm(self) -> int:
        """Return the number in the arch, 100 for `sm_100a`: what a cubin's ELF header holds."""
        return sm_number(self.arch)

    @property
    def label(self) -> str:
        """Return a name that two profiles of different facts never share: the name, and a digest of the facts."""
        return f"{self.name}-{digest_json(self.render())[:8]}"

    def render(self) -> dict[str, object]:
        """Return the fields as JSON."""
        return asdict(self)

    @classmethod
    def parse(cls, fields: Fields) -> Target:
        """Read what `render` wrote. Raises `RecordError`."""
        return cls(
            name=fields.name("name"),
            arch=parse_arch(fields),
            sms=fields.integer("sms"),
            cuda=fields.integer("cuda"),
            machine=fields.name("machine"),
        )


def parse_arch(fields: Fields) -> str:
    """Read the field `arch`. Raises `RecordError`."""
    arch = fields.string("arch")
    if _ARCH.fullmatch(arch) is None:
        raise fields.wrong("field `arch` is no CUDA arch such as sm_100a")
    return arch


def sm_number(arch: str) -> int:
    """Return 100 for `sm_100a`. Raises `ValueError` for what is no arch."""
    match = _ARCH.fullmatch(arch)
    if match is None:
        raise ValueError(f"`{arch}` is no CUDA arch such as sm_100a")
    return int(match[1])


MACHINES = ("x86_64", "aarch64")
"""The kinds of hosts that a target can have."""


def host_machine() -> str:
    """Return the processor of this machine, as a target names it."""
    return platform.machine()

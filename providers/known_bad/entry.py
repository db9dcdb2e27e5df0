"""One toolchain, or range of them, whose kernels are known to hang or to be wrong, and which of its kernels are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ...cache.target import sm_number
from ...cache.toolchain import Toolchain
from ..registry import DEFAULT
from .versions import Range


@dataclass(frozen=True)
class Entry:
    """What goes wrong, and for which kernels. What is left out is about all.

    Attributes:
        id: its name on the list.
        what: what goes wrong, as a sentence without its full stop.
        source: where that is reported, a link.
        dsl: versions of the DSL. Of its distributions one is enough: which of them is to blame, nobody says.
        fa4: versions of the default provider. Packages of its lineage have versions of their own: give both ends.
        archs, slots: the arch of kernels, of which the letter behind the number does not count, and the compile cache.
        key: positions of a key by name, each with the values that are meant, as a record shows them.
    """

    id: str
    what: str
    source: str
    dsl: Range | None = None
    fa4: Range | None = None
    archs: Sequence[str] = ()
    slots: Sequence[str] = ()
    key: Mapping[str, Sequence[object]] = field(default_factory=dict)

    def is_about(self, toolchain: Toolchain, arch: str) -> bool:
        """Return whether kernels that a toolchain makes for an arch can be meant."""
        return self.is_of(toolchain) and (not self.archs or sm_number(arch) in map(sm_number, self.archs))

    def is_of(self, toolchain: Toolchain) -> bool:
        """Return whether kernels that a toolchain makes for some arch can be meant."""
        if toolchain.provider != DEFAULT.name:
            return False
        if self.fa4 is not None and not self.fa4.has(toolchain.provider_version):
            return False
        return self.dsl is None or any(map(self.dsl.has, toolchain.dsl.values()))

    def hits(self, slot: str, key_fields: Mapping[str, object]) -> bool:
        """Return whether a kernel is meant, of a toolchain and an arch that it is about."""
        if self.slots and slot not in self.slots:
            return False
        return all(name in key_fields and _is_one_of(key_fields[name], values) for name, values in self.key.items())

    def __str__(self) -> str:
        return f"{self.what} (`{self.id}`, {self.source})"

    @property
    def told(self) -> str:
        """What goes wrong, and where that is reported."""
        return f"{self.what} ({self.source})"

    @property
    def kernels(self) -> str:
        """Which kernels it is about: archs, slots, and positions of a key with their values."""
        key = (f"{name} = {' or '.join(json.dumps(value) for value in values)}" for name, values in self.key.items())
        return "; ".join(filter(None, (", ".join(self.archs), ", ".join(self.slots), ", ".join(key))))

    def render(self) -> dict[str, object]:
        """Return the fields as JSON."""
        return {
            "id": self.id,
            "what": self.what,
            "source": self.source,
            "dsl": self.dsl and self.dsl.text,
            "fa4": self.fa4 and self.fa4.text,
            "archs": list(self.archs),
            "slots": list(self.slots),
            "key": {name: list(values) for name, values in self.key.items()},
        }

    @classmethod
    def parse(cls, fields: Mapping[str, object]) -> Entry:
        """Read what `render` returned, of a file that is shipped with this package."""
        ranges = {name: Range.parse(str(fields[name])) for name in ("dsl", "fa4") if fields[name]}
        return cls(**{**fields, "dsl": None, "fa4": None, **ranges})  # type: ignore[arg-type]


def _is_one_of(value: object, values: Sequence[object]) -> bool:
    return any(type(value) is type(one) and value == one for one in values)  # `True` is no 1

"""What the kernel of a key can be called: worked out once for a lookup, however many roots are asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..cache import layout
from ..cache.key import Facts, KernelId, KeyText, kernel_id
from ..providers.dsl.driver import Device


@dataclass(frozen=True)
class Names:
    """The names of a kernel that a toolchain has built.

    Attributes:
        kernels: the ids that it can have, in the order in which they are looked for.
        records: where the record of each is, relative to the root.
        is_here: whether one of them is in the process.
    """

    kernels: Sequence[KernelId]
    records: Sequence[str]
    is_here: bool


class LookedUp:
    """A key as it is looked up, whose names are the same in all roots."""

    def __init__(
        self, slot: str, key: KeyText, facts: Facts, device: Device, is_here: Callable[[KernelId], bool]
    ) -> None:
        self._of_key = device.arch, slot, key
        # Most kernels ask the device for nothing; those that do have what they asked for in their id.
        self._asked: list[Facts] = [facts, {**facts, "sms": device.sms}] if device.sms else [facts]
        self._is_here = is_here
        self._known: dict[str, Names] = {}

    def by(self, toolchain: str) -> Names:
        """Return the names that it has if a toolchain has built it."""
        known = self._known.get(toolchain)
        if known is None:
            kernels = [kernel_id(toolchain, *self._of_key, facts) for facts in self._asked]
            records = [layout.record_path(toolchain, kernel) for kernel in kernels]
            known = self._known[toolchain] = Names(kernels, records, any(map(self._is_here, kernels)))
        return known

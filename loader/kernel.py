"""A kernel that is in this process: as it is called, and before anybody has looked it up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..cache.origin import Origin
from ..cache.outcome import Finding
from ..cache.record import Reference
from ..products import load
from ..providers.dsl.driver import Device


class _InProcess:
    """What can be done with a kernel whose blob is loaded."""

    reference: Reference
    library: load.Handle
    origin: Callable[[], Origin | Finding | None]

    def initialize(self) -> None:
        """Load its cubin onto the GPU, as its first call would. Raises `LoadError`."""
        load.initialize(self.library, self.reference.symbol)

    def is_for(self, device: Device) -> bool:
        """Return whether it was built for a device."""
        reference = self.reference
        return reference.arch == device.arch and reference.facts.get("sms", device.sms) == device.sms


@dataclass(frozen=True)
class Opened(_InProcess):
    """A kernel whose verified blob is loaded, without the function that is made for its lookup.

    The attributes are those of `Kernel`; `address` is that of its function.
    """

    reference: Reference
    root: Path
    address: int
    load_seconds: float
    library: load.Handle = field(repr=False)
    origin: Callable[[], Origin | Finding | None] = field(default=lambda: None, repr=False, compare=False)


@dataclass(frozen=True)
class Kernel(_InProcess):
    """A kernel of the cache, loaded into this process.

    Attributes:
        reference: what was needed of its record to load it; `reference.record` is all of it.
        root: where it was found.
        function: the `tvm_ffi.Function` that the provider calls.
        load_seconds: how long it took, from the key to the function.
        library: the shared object.
        origin: reads where the kernel comes from, and what compiling it took; for people.
    """

    reference: Reference
    root: Path
    function: Any
    load_seconds: float
    library: load.Handle = field(repr=False)
    origin: Callable[[], Origin | Finding | None] = field(default=lambda: None, repr=False, compare=False)

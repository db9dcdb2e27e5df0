"""A library's calls made with values on a GPU, and what came of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from .call import Call


@dataclass(frozen=True)
class Outcome:
    """What came of a call.

    Attributes:
        errors: the relative error of each result that was compared with a reference, by name.
        tolerance: the error that is allowed; None if nothing was compared.
        not_compared: why nothing was, or not all; else empty.
        fault: what is wrong with the results, or empty.
        seconds: what the call took when its kernels were loaded.
    """

    errors: Mapping[str, float]
    tolerance: float | None
    not_compared: str
    fault: str
    seconds: float


class RealCalls(Protocol):
    """Makes a library's calls, in a process that has a GPU and a loader. Made where the library can be imported."""

    def make(self, call: Call, seed: int) -> Outcome:
        """Make a call with random values, the same for the same seed, and compare what it returns.

        Raises what the library raises.
        """

    def is_sound(self) -> bool:
        """Return whether the GPU still computes in this process: an error of CUDA's stays until it ends."""

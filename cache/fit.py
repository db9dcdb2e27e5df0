"""How nearly a kernel's toolchain has to be what is installed. Imports next to nothing: `--help` says it."""

from __future__ import annotations

import enum


class Fit(enum.Enum):
    """Which kernels a job takes that another toolchain built; `cache/compared.py` says what is compared."""

    EXACT = "exact"
    """None that what is installed would have compiled otherwise: the default where nothing may be compiled."""

    COMPATIBLE = "compatible"
    """All that run here. What differs is said once, and is in the report."""

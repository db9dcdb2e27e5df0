"""Who is told how a build goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Progress(Protocol):
    """Who is told how a build goes."""

    def note(self, message: str) -> None:
        """Say what happens now."""

    def start(self, total: int, jobs: int) -> None:
        """Begin with compiling `total` kernels, `jobs` at a time."""

    def running(self, labels: Sequence[str]) -> None:
        """Take note of the kernels that are being compiled now; called again and again."""

    def done(self, label: str, seconds: float, where: str) -> None:
        """Count a kernel that was built; by which worker, if it was an engine's."""

    def failed(self, label: str, reason: str) -> None:
        """Count a kernel that failed."""

    def finish(self) -> None:
        """End."""

"""A figure of a benchmark."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Row:
    """What was measured, in which unit."""

    name: str
    value: float
    unit: str

    def line(self) -> str:
        """Return the row as text."""
        return f"{self.name}: {self.shown()}"

    def shown(self) -> str:
        """Return the value with three digits, and the unit."""
        value = f"{self.value:,.0f}" if abs(self.value) >= 100 else f"{self.value:.3g}"
        return f"{value} {self.unit}".strip()

    def render(self) -> dict[str, object]:
        """Return the row as JSON."""
        return asdict(self)

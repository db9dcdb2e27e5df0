"""How long kernels take to compile, and how large they are, as kernels that were built let one expect.

The logarithm of a quantity is a sum: a base, and an effect of each trait of the kernel. Effects are fitted by least
squares that shrinks them (ridge), so that a trait which few kernels had changes little, and one that none had nothing.
A model can be fitted on top of another: it then corrects that one by what it got wrong.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..cache.record import Selection

Traits = Mapping[str, float]
"""What a model knows of a kernel: names, each with a value, which is 1 for what is there or not."""

# Chosen by leaving out whole caches (`benchmarks/estimate.py --cross-validate`). Of samples of two shipped specs, by
# other kernels, the sums of CPU seconds were 0.87 and 1.03 of what was measured, and with a tenth of this 0.89 and
# 1.14. Medians of groups (class, head_dim, sparse or not) came to 0.70 and 0.92.
_SHRINK = 3.0
_SHRINK_BASE = 0.1
_SWEEPS = 60

# An integer from here on is a size: what is between two that were seen is expected to be between what these took.
_SMALLEST_SIZE = 16
_LONGEST_VALUE = 24


@dataclass(frozen=True)
class Model:
    """An expectation of a positive quantity by traits.

    Attributes:
        base: logarithm of what a kernel with none of the traits has.
        effects: what each trait adds.
    """

    base: float = 0.0
    effects: Mapping[str, float] = field(default_factory=dict)

    def expect(self, traits: Traits) -> float:
        """Return what is expected of a kernel, in the unit of what the model was fitted to."""
        return math.exp(self._log(traits))

    def _log(self, traits: Traits) -> float:
        return self.base + sum(self.effects.get(name, 0.0) * value for name, value in traits.items())

    def fitted(self, seen: Sequence[tuple[Traits, float]]) -> Model:
        """Return this model, corrected by kernels of which the quantity is known. Each is more than zero."""
        if not seen:
            return self
        left = [math.log(value) - self._log(traits) for traits, value in seen]
        base, effects = _ridge([traits for traits, _ in seen], left)
        names = {**self.effects, **effects}
        return Model(self.base + base, {name: self.effects.get(name, 0.0) + effects.get(name, 0.0) for name in names})

    def render(self) -> dict[str, object]:
        """Return the fields as JSON, to three digits behind the point; effects that are none are left out."""
        effects = {name: round(effect, 3) for name, effect in sorted(self.effects.items()) if abs(effect) >= _NO_EFFECT}
        return {"base": round(self.base, 3), "effects": effects}

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Model:
        """Read what `render` wrote."""
        return cls(content["base"], content["effects"])


_NO_EFFECT = 0.0005


def traits(slot: str, key_fields: Mapping[str, object], selection: Selection) -> Traits:
    """Return what a model is to know of a kernel: slot, class, tiles, and each position of its key, by itself."""
    kind = f"{slot} {selection.kernel_class}"
    plain = {
        "cluster_size": selection.cluster_size,
        "tiles": selection.shown_tiles,
        **key_fields,
    }
    found = {f"slot={slot}": 1.0, f"class={kind}": 1.0}
    for name, value in plain.items():
        found[f"{name}={_shown(value)}"] = 1.0
        found[f"{kind}: {name}={_shown(value)}"] = 1.0
        if type(value) is int and value >= _SMALLEST_SIZE:
            found[f"log {name}"] = math.log2(value / _SMALLEST_SIZE)
    return found


def _shown(value: object) -> str:
    """Return a value of a key as text; a digest, or what else is long, says only that it is there."""
    text = str(value)
    return text if len(text) <= _LONGEST_VALUE else "long"


def _ridge(rows: Sequence[Traits], wanted: Sequence[float]) -> tuple[float, dict[str, float]]:
    """Return base and effects whose sums come close to what is wanted: one after the other, again and again."""
    constant = {name for name, number in Counter(name for row in rows for name in row).items() if number == len(rows)}
    columns: dict[str, list[tuple[int, float]]] = {}
    for place, row in enumerate(rows):
        for name, value in row.items():
            if name not in constant or any(other[name] != value for other in rows):
                columns.setdefault(name, []).append((place, value))
    left = list(wanted)
    effects = dict.fromkeys(columns, 0.0)
    weights = {name: sum(value * value for _, value in column) for name, column in columns.items()}
    base = 0.0
    for _ in range(_SWEEPS):
        step = (sum(left) - _SHRINK_BASE * base) / (len(left) + _SHRINK_BASE)
        base += step
        left = [one - step for one in left]
        for name, column in columns.items():
            step = (sum(value * left[place] for place, value in column) - _SHRINK * effects[name]) / (
                weights[name] + _SHRINK
            )
            effects[name] += step
            for place, value in column:
                left[place] -= step * value
    return base, effects

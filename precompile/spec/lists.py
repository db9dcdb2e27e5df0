"""Lists of a spec that could have been meant as one value: `head_dim: [192, 128]` for `head_dim: [[192, 128]]`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...providers.call import Variant
from ...text.yaml_source import Value


@dataclass(frozen=True)
class OpenList:
    """Such a list, as it was read: as several values. `calls` are those of each value, in the order of the list."""

    axis: str
    place: Value
    calls: Sequence[Sequence[Variant]]

    @property
    def question(self) -> str:
        """Return what to ask the person who wrote it."""
        return f"did you mean `{self.axis}: [{self.place.text}]`?"

    def doubt(self, is_excluded: Callable[[Variant], bool]) -> str:
        """Return a sentence with place and question if all calls of one of the values are excluded, else nothing."""
        for item, calls in zip(self.place.items(f"`{self.axis}`"), self.calls, strict=True):
            if calls and all(map(is_excluded, calls)):
                read = f"`{self.axis}: {self.place.text}` is {len(self.calls)} values"
                return str(self.place.error(f"{read}, and all calls of `{item.text}` are excluded; {self.question}"))
        return ""

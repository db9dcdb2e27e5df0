"""What stands in a job for a provider's compile cache."""

from __future__ import annotations

from typing import Any, Protocol


class Answerer(Protocol):
    """Who answers for what a slot does not have in its memory."""

    def contains(self, slot: ServedSlot, key: object) -> bool:
        """Return whether there is a function for a key, and put it into the slot."""

    def function_of(self, slot: ServedSlot, key: object) -> Any:
        """Return the function of a key that was put there under another one, or raise `KeyError`."""

    def remember(self, slot: ServedSlot, key: object, function: Any) -> None:
        """Take what the provider compiled."""


class ServedSlot(dict[Any, Any]):
    """A compile cache; `original` is the provider's own. What it has in memory is answered by `dict` itself."""

    def __init__(self, answerer: Answerer, name: str, original: Any) -> None:
        super().__init__()
        self.name = name
        self.original = original
        self._answerer = answerer

    def __contains__(self, key: object) -> bool:
        return dict.__contains__(self, key) or self._answerer.contains(self, key)

    def get(self, key: object, default: Any = None) -> Any:
        """Return the function of a key, wherever it is, or the default."""
        if key in self:
            return self[key]
        return default

    def __missing__(self, key: object) -> Any:
        return self._answerer.function_of(self, key)

    def __setitem__(self, key: object, function: Any) -> None:
        self._answerer.remember(self, key, function)

    def clear(self) -> None:
        """Forget, as the provider's own caches do."""
        super().clear()
        self.original.clear()

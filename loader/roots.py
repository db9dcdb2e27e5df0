"""What a report tells of the roots: where they are, and what the name of their contents is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..cache.listing import list_contents
from ..cache.outcome import FAULTS
from ..cache.store import Root
from .choices import OnMiss
from .config import Config
from .line import ServedRoot
from .ranks import placement

_MOST_RECORDS = 2000  # that are read for a name, at 0.2 ms each


@dataclass
class RootsTold:
    """The roots of a process.

    A seal says its root's fingerprint. That of another root is found by reading all of it, so one process of each host
    does it, once, and not while the root is being filled.
    """

    config: Config
    _told: list[ServedRoot] | None = field(default=None, init=False)

    def __call__(self, thorough: bool) -> Sequence[ServedRoot]:
        """Return them; with their fingerprints if there is time for it, or they are known."""
        if self._told is None and thorough:
            self._told = [ServedRoot(root.name, self._fingerprint(root)) for root in self._roots()]
        return self._told or [ServedRoot(root.name) for root in self._roots()]

    def _roots(self) -> list[Root]:
        trust, vouchers = self.config.trust, self.config.vouchers
        named = [Root(path, trust, vouchers) for path in self.config.roots]
        return named + [wheel.root(trust, vouchers) for wheel in self.config.wheels]

    def _fingerprint(self, root: Root) -> str:
        try:
            root.require_layout()
            if (sealed := root.sealed) is not None:
                return sealed.fingerprint
            is_chosen = not placement().local_rank and self.config.on_miss is not OnMiss.STORE
            return list_contents(root).fingerprint if is_chosen and _records(root) <= _MOST_RECORDS else ""
        except FAULTS:  # the misses say what is wrong with it
            return ""


def _records(root: Root) -> int:
    return sum(len(files) for _, _, files in os.walk(root.path / "records"))

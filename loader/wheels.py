"""The roots of wheels that are installed: found by their entry points, with no setting."""

from __future__ import annotations

import importlib.metadata
import logging
from dataclasses import dataclass
from pathlib import Path

from ..cache.layout import ENTRY_POINTS
from ..cache.seal import Vouchers
from ..cache.store import Root
from ..cache.trust import Trust

_LOG = logging.getLogger("fa4_precompile")


@dataclass(frozen=True)
class Wheel:
    """A root that pip has installed, and its fingerprint, as the code beside it has it."""

    folder: Path
    fingerprint: str

    def root(self, trust: Trust, vouchers: Vouchers) -> Root:
        """Return it as a root: whoever vouches for all roots does for it, else the code beside it."""
        return Root(self.folder, trust, vouchers or Vouchers(frozenset({self.fingerprint})))


def installed_wheels() -> tuple[Wheel, ...]:
    """Return the roots of all wheels of kernels, by name; what can't be meant is logged. Takes some milliseconds.

    An entry point leads to a folder and its fingerprint. Whoever could change either could change the code that is
    imported here.
    """
    found = []
    try:
        entries = sorted(importlib.metadata.entry_points(group=ENTRY_POINTS), key=lambda entry: entry.name)
    except Exception as error:  # of another package's metadata
        _LOG.warning("fa4-precompile: wheels of kernels can't be looked for: %s", error)
        return ()
    for entry in entries:
        try:
            folder, fingerprint = entry.load()
            found.append(Wheel(Path(folder).absolute(), str(fingerprint)))
        except (Exception, SystemExit) as error:  # whatever somebody's module does
            _LOG.warning("fa4-precompile: the kernels of `%s` can't be found: %s", entry.value, error)
    return tuple(dict.fromkeys(found))

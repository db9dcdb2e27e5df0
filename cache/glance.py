"""A look from outside at whether a root has a file: what a lookup asks of each of many roots before it reads in one.

Guarantees
    What is there at that moment is seen, whatever a reader has open or has found out before.
Not guaranteed
    That what is there can be read, is trusted, or is listed in the seal: a reader finds that out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from . import layout
from .key import KernelId
from .outcome import Miss, MissReason
from .store import Root


def may_have(root: Root, relatives: Iterable[str]) -> bool:
    """Return whether there is something at one of these paths: a system call each, of half a failed open's time."""
    # A list, as there are two: a generator that stops at the first takes as long as the call.
    return True in [os.access(f"{root.name}/{relative}", os.F_OK, effective_ids=True) for relative in relatives]


def lacks(root: Root, relatives: Iterable[str]) -> bool:
    """Return whether a root that was read before is still there and has none of these files, and nothing else is wrong.

    Then a reader would find no other reason.
    """
    seal = root.sealed
    for relative in relatives:
        if seal is not None and relative in seal.entries:
            return False
        try:
            os.stat(f"{root.name}/{relative}")
            return False
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return may_have(root, [layout.FORMAT])


def absence(root: Root, kernel: KernelId) -> Miss:
    """Return the miss of a kernel that a root lacks, as a reader would."""
    return Miss(MissReason.ABSENT, f"`{root.name}` has no record of kernel {kernel[:12]}")

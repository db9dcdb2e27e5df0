"""What is known to go wrong with kernels that a job is given. They are used all the same: the job asked for them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..cache.store import Root
from ..cache.toolchain import Toolchain
from ..cache.trust import Trust
from ..errors import SpecError
from .kernel import Kernel

if TYPE_CHECKING:
    from ..providers.known_bad.listed import KnownBad

_LOG = logging.getLogger("fa4_precompile")


class Suspicion:
    """Looks each kernel up in the list of known-bad toolchains, once, when it is first served.

    The list is that of this release, which can be younger than the cache. What is known of a toolchain is found out
    with its first kernel, and mostly it is nothing.
    """

    def __init__(self, file: Path | None, say_once: Callable[[object, str], None]) -> None:
        self._file = file
        self._say_once = say_once
        self._listed: KnownBad | None = None
        self._about: dict[tuple[str, str], KnownBad | None] = {}

    def prepare(self) -> None:
        """Read the list, for which a first step should not wait. Never raises."""
        with self._harmless():
            self._listed = self._listed or self._read()

    def look_at(self, kernel: Kernel) -> None:
        """Warn of a kernel that is known to be bad, once for each entry of the list. Never raises."""
        with self._harmless():
            reference = kernel.reference
            known = self._known(kernel)
            for entry in known.of(reference.slot, reference.record.key_fields) if known else ():
                what = f"kernel {reference.id[:12]} of slot `{reference.slot}` is used, and is known to be bad: {entry}"
                self._say_once(("known bad", entry.id), what)

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        try:
            yield
        except Exception:  # a warning is not worth the job
            _LOG.debug("it could not be found out what is known to be bad", exc_info=True)

    def _known(self, kernel: Kernel) -> KnownBad | None:
        """Return what is known of the toolchain and the arch of a kernel; None if that can't be told."""
        place = kernel.reference.toolchain, kernel.reference.arch
        if self._listed is not None and place not in self._about:
            self._about[place] = None
            # Whoever may have written the file: the kernel's id is made of the toolchain's, and that of what is in it.
            for toolchain in Root(kernel.root, Trust.ANY).toolchains():
                if isinstance(toolchain, Toolchain) and toolchain.id == place[0]:
                    self._about[place] = self._listed.about(toolchain, place[1])
        return self._about.get(place)

    def _read(self) -> KnownBad:
        from ..providers.known_bad.listed import known_bad

        try:
            return known_bad(self._file)
        except SpecError as error:
            self._say_once("known bad", f"{error}; only the shipped list of known-bad toolchains is looked at")
            return known_bad()

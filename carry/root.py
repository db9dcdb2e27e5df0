"""A root as a source: another cache directory on this machine, or the same one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..cache.certificate import Certificate
from ..cache.contents import Contents, Entry
from ..cache.listing import list_contents
from ..cache.origin import Origin
from ..cache.outcome import FAULTS
from ..cache.store import Root
from ..errors import CarryError


class RootSource:
    """The files of a root, under its own rules of trust. It is a `Source`."""

    def __init__(self, root: Root) -> None:
        self.name = str(root.path)
        self._root = root

    def contents(self) -> Contents:
        """Return what is there. Raises what reading a cache raises."""
        return list_contents(self._root)

    def signature(self) -> bytes:
        """Return what is beside the seal; nothing for a root that is not sealed. Raises what reading a cache raises."""
        return self._root.signature()

    def read(self, entries: Sequence[Entry]) -> Iterator[tuple[Entry, bytes]]:
        """Yield the bytes of some files."""
        for entry in entries:
            try:
                yield entry, self._root.file(entry)
            except FAULTS as error:
                raise CarryError(self.name, f"`{entry.path}` can't be read: {error}", "`verify` says more") from None

    def origins(self) -> Iterator[Origin]:
        """Yield where kernels come from, as far as there are files of it that can be read."""
        return (item for item in self._root.origins() if isinstance(item, Origin))

    def certificates(self) -> Iterator[Certificate]:
        """Yield how kernels ran, as far as there are files of it that can be read."""
        return (item for item in self._root.certificates() if isinstance(item, Certificate))

    def close(self) -> None:
        """Nothing is open."""

"""Which toolchains of a root have kernels that run here: found out once, and anew where that may have changed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..cache import layout
from ..cache.compared import PROVIDER_SOURCE, RunTime
from ..cache.fit import Fit
from ..cache.kinds import Kind
from ..cache.outcome import FAULTS, Finding, Miss, MissReason, miss_from, miss_of
from ..cache.store import Root
from ..cache.toolchain import Toolchain
from ..providers.installed import installed_run_time

if TYPE_CHECKING:
    from ..providers.protocol import Provider

_Stamp = tuple[tuple[int, int, int, int], ...]
_TOOLCHAINS = layout.TOOLCHAINS.partition("/")[0]

# A folder that changes twice within a tick of its filesystem's clock looks as if it had changed once. The coarsest
# ticks are of two seconds; the rest is for a server's clock that is behind ours.
_SETTLED_S = 10.0


@dataclass(frozen=True)
class Look:
    """What one look at a root's toolchains found.

    Attributes:
        fitting: those whose kernels run here, by id, the installed one first.
        misses: why there is none of the others.
        stamp: the state of the folders that were looked into, if what comes into them later can be told by it.
    """

    fitting: Mapping[str, Toolchain]
    misses: Sequence[Miss]
    stamp: _Stamp | None = None

    def holds(self, root: Root) -> bool:
        """Return whether nothing can have come since, such as a first toolchain that another process has published."""
        return self.stamp is not None and self.stamp == _stamp(root)


class Looks:
    """What a job has seen of its roots' toolchains. Most have the same, which is read in each and parsed once.

    Attributes:
        inexact: of the toolchains whose kernels run here, what differs in those that are not what is installed, in
            words, by id.
    """

    def __init__(self, provider: Callable[[], Provider], fit: Fit) -> None:
        self.inexact: dict[str, str] = {}
        self._provider = provider
        self._fit = fit
        self._installed: RunTime | None = None
        self._looks: dict[str, Look] = {}
        self._parsed: dict[bytes, _Named] = {}
        self._kind = Kind(layout.TOOLCHAINS, self._parse, lambda named: layout.toolchain_path(named.id))

    def at(self, root: Root) -> Look:
        """Return what there is in a root."""
        known = self._looks.get(root.name)
        if known is None:
            known = self._looks[root.name] = self._look(root, None)
        elif not (known.fitting or known.holds(root)):
            known = self._looks[root.name] = self._look(root, _stamp(root))
        return known

    @property
    def run_time(self) -> RunTime:
        """What is installed here, read once. Raises `MachineError` if a part is missing."""
        if self._installed is None:
            self._installed = installed_run_time(self._provider())
        return self._installed

    def differences(self, toolchain: Toolchain) -> list[str]:
        """Return what keeps a toolchain's kernels from being taken here, in words. Raises as `run_time`."""
        return self.run_time.differences(toolchain, self._fit)

    def forget(self) -> None:
        """Look at all roots again."""
        self._looks.clear()

    def _look(self, root: Root, stamp: _Stamp | None) -> Look:
        """Look at a root whose folders have a stamp; none the first time, as most roots need no second look."""
        try:
            found = root.look(self._kind)
        except FAULTS as error:
            return Look({}, [miss_of(error, root.path, "toolchains")])
        fitting: list[_Named] = []
        misses: list[Miss] = []
        for item in found:
            if isinstance(item, Finding):
                stamp = None  # what mends it may change nothing of the folders
                misses.append(miss_from(item, root.path))
            elif differences := self.differences(item.toolchain):
                what = f"`{root.path}` was built for another installation: {'; '.join(differences)}"
                if any(one.startswith(PROVIDER_SOURCE) for one in differences):
                    there = f"{item.toolchain.provider} {item.toolchain.provider_version}"
                    what += f" (there {there}, here `{self._provider().package}`)"
                misses.append(Miss(MissReason.TOOLCHAIN, what))
            else:
                fitting.append(item)
                if inexact := self.run_time.inexact(item.toolchain):
                    self.inexact[item.id] = "; ".join(inexact)
        fitting.sort(key=self._distance)
        is_settled = stamp is not None and time.time() - max(ctime for *_, ctime in stamp) / 1e9 > _SETTLED_S
        return Look({one.id: one.toolchain for one in fitting}, misses, stamp if is_settled else None)

    def _distance(self, named: _Named) -> tuple[int, bool, str]:
        """Return what orders toolchains by how much they differ from what is installed."""
        here, there = self.run_time, named.toolchain
        return len(here.inexact(there)), there.tvm_ffi != here.tvm_ffi, named.id

    def _parse(self, source: str, data: bytes) -> _Named:
        known = self._parsed.get(data)
        if known is None:
            toolchain = Toolchain.parse_file(source, data)
            known = self._parsed[data] = _Named(toolchain.id, toolchain)
        return known


@dataclass(frozen=True)
class _Named:
    """A toolchain with its id, which takes longer to compute than all else that is done with it."""

    id: str
    toolchain: Toolchain


def _stamp(root: Root) -> _Stamp | None:
    """Return what changes if a toolchain is published into a root, it is sealed, or another one takes its place."""
    try:
        found = [os.stat(root.name), os.stat(f"{root.name}/{_TOOLCHAINS}")]
    except OSError:
        return None
    return tuple((one.st_dev, one.st_ino, one.st_mtime_ns, one.st_ctime_ns) for one in found)

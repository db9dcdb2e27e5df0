"""How the kernels of a root ran, as far as its certificates tell, and what has not run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

from .certificate import Certificate
from .key import KernelId
from .outcome import Finding
from .record import Record
from .store import Root

_Identity = tuple[str, KernelId]


class Certificates:
    """The certificates of a root's kernels, or of those whose ids begin with some digits.

    They are read once, when the first is asked for. One of other bytes than the kernel has now says nothing of it.
    `findings` are what was wrong with those that were read.
    """

    def __init__(self, root: Root, digits: str = "") -> None:
        self.findings: list[Finding] = []
        self._read = partial(root.certificates, digits)
        self._by_kernel: dict[_Identity, list[Certificate]] | None = None

    def of(self, record: Record) -> list[Certificate]:
        """Return how a kernel ran, the last time first."""
        if self._by_kernel is None:
            self._by_kernel = {}
            for found in self._read():
                if isinstance(found, Finding):
                    self.findings.append(found)
                else:
                    self._by_kernel.setdefault((found.toolchain, found.kernel), []).append(found)
        here = self._by_kernel.get((record.toolchain, record.id), [])
        return sorted((one for one in here if one.blob == record.blob), key=lambda one: one.when, reverse=True)


def uncertified(root: Root, kernels: Iterable[_Identity], arch: str) -> Iterator[str]:
    """Yield what of some kernels has not run on a GPU of an arch, or went wrong when it last did, in words."""
    if root.vouchers:
        yield "nobody vouches for certificates, so where a fingerprint or a key is asked for there are none"
        return
    certificates = Certificates(root)
    records = {(item.toolchain, item.id): item for item in root.records() if isinstance(item, Record)}
    for toolchain, kernel in kernels:
        record = records.get((toolchain, kernel))
        if record is None:  # said by who looks for kernels
            continue
        there = [one for one in certificates.of(record) if one.where.arch == arch]
        if not there:
            yield f"kernel {kernel[:12]} ({record.slot}) has not run on a GPU of {arch}"
        elif not there[0].is_good:
            yield f"kernel {kernel[:12]} ({record.slot}) {there[0]}"

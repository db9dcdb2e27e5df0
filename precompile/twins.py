"""Kernels for one kind of GPU beside several kinds of hosts: each is compiled once, and linked for every host.

A cubin knows nothing of the host. What a compile for one target of a spec makes for another one is kept in a folder
until that target's turn, and published there if its plan has the kernel, with the same key and facts: the id has both.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType

from ..cache.key import KernelId
from ..cache.target import Target
from ..cache.toolchain import Toolchain
from ..products.product import Product
from .compile.worker import Beside


class Twins:
    """What compiles for earlier targets of a build have made for later ones. Use it in a `with` statement."""

    def __init__(self, toolchains: Mapping[Target, Toolchain] = MappingProxyType({})) -> None:
        """Begin with all targets that are going to be built, in their order, each with its toolchain."""
        self._toolchains = toolchains
        self._kept: dict[KernelId, Path] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Twins:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def beside(self, target: Target) -> tuple[Beside, ...]:
        """Return the later targets for which a compile for this one can make kernels, too."""
        targets = list(self._toolchains)
        later = targets[targets.index(target) + 1 :] if target in targets else []
        return tuple(Beside(self._toolchains[other].id, other) for other in later if _is_twin(target, other))

    def keep(self, products: Iterable[Product]) -> None:
        """Keep products for their targets' turn."""
        for product in products:
            self._folder = self._folder or tempfile.TemporaryDirectory(prefix="fa4-twins-")
            path = Path(self._folder.name, product.kernel)
            path.write_bytes(pickle.dumps(product))
            self._kept[product.kernel] = path

    def take(self, kernels: Iterable[KernelId]) -> Product | None:
        """Return the product that was kept of one of some ids, and keep it no longer."""
        path = next((self._kept.pop(kernel) for kernel in kernels if kernel in self._kept), None)
        if path is None:
            return None
        product: Product = pickle.loads(path.read_bytes())
        path.unlink()
        return product


def _is_twin(one: Target, other: Target) -> bool:
    return one.machine != other.machine and (one.arch, one.cuda) == (other.arch, other.cuda)

"""Loading the kernels of manifests before they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..cache.key import KernelId
from ..cache.outcome import Miss
from ..errors import CacheError, LoadError
from .resolve import Cache, Kernel

_HINT = "build the spec for this GPU; `fa4-precompile targets --detect` prints its profile"


@dataclass(frozen=True)
class Preloaded:
    """What was loaded; `short` is what could not be, if there is something."""

    kernels: Sequence[Kernel]
    short: CacheError | None


def preload(caches: Sequence[Cache], spec: str | None) -> Preloaded:
    """Load and initialize all kernels of the manifests for this device, of one spec or of all.

    The caches have the same roots, for a provider each. Raises `MachineError` if there is no GPU, or GPUs that differ.
    """
    device = caches[0].device
    manifests = [
        (cache, root, found)
        for cache in caches
        for root, found in cache.manifests(cache.device)
        if spec is None or found.spec == spec
    ]
    loaded: dict[KernelId, Kernel] = {}
    problems: list[str] = []
    if not manifests:
        of = f"of `{spec}` " if spec else ""
        problems.append(f"there is no manifest {of}for {device.arch} with {device.sms} SMs")
    if spec is None or not manifests:
        problems += [problem for cache in caches for problem in cache.unread_manifests()]
    for cache, root, manifest in manifests:
        for kernel_id in manifest.kernels:
            if kernel_id in loaded:  # of another manifest, too
                continue
            kernel = cache.load(root, manifest.toolchain, kernel_id)
            if isinstance(kernel, Miss):
                problems.append(f"kernel `{kernel_id[:12]}` does not load: {kernel.detail}")
                continue
            try:
                if device.present:
                    kernel.initialize()
            except LoadError as error:
                problems.append(str(error))
                continue
            loaded[kernel_id] = kernel
    if not problems:
        return Preloaded(list(loaded.values()), None)
    roots, told = ", ".join(map(str, caches[0].roots)), "; ".join(dict.fromkeys(problems))
    return Preloaded(list(loaded.values()), CacheError(roots, f"can't preload: {told}", _HINT))

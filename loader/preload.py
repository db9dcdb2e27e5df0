"""Loading kernels before they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..cache.key import KernelId
from ..cache.manifest import Manifest
from ..cache.outcome import Miss
from ..cache.store import Root
from ..errors import CacheError, LoadError
from ..providers.dsl.driver import Device
from .kernel import Kernel
from .resolve import Cache
from .wanted import Wanted

_HINT = "build the spec for this GPU; `fa4-precompile targets --detect` prints its profile"


@dataclass(frozen=True)
class Candidate:
    """A kernel that is wanted, and where it can be: a root and a toolchain each."""

    kernel: KernelId
    places: Sequence[tuple[Root, str]]


@dataclass(frozen=True)
class Candidates:
    """The kernels that are wanted of a cache; `problem` says why there is none, or not more."""

    kernels: Sequence[Candidate]
    problem: str = ""


@dataclass(frozen=True)
class Preloaded:
    """What was loaded; `short` is what could not be, if there is something."""

    kernels: Sequence[Kernel]
    short: CacheError | None


def candidates(cache: Cache, wanted: Wanted, device: Device) -> Candidates:
    """Return the kernels of a cache that are wanted for a device, each once."""
    if wanted.report is not None:
        return _reported(wanted)
    manifests = cache.manifests(device)
    places: dict[KernelId, list[tuple[Root, str]]] = {}
    for root, manifest in manifests:
        for kernel in manifest.kernels if wanted.spec in (None, manifest.spec) else ():
            places.setdefault(kernel, []).append((root, manifest.toolchain))
    if not places:
        of = f"of `{wanted.spec}` " if wanted.spec else ""
        others = ", ".join(sorted({f"`{manifest.spec}`" for _, manifest in manifests}))
        there_are = f"; there is one of {others}" if others else ""
        if not cache.has_toolchain:
            there_are = f"; {cache.why_unfit}"
        return Candidates([], f"there is no manifest {of}for {device.arch} with {device.sms} SMs{there_are}")
    lacking = _lacking([found for _, found in manifests if found.spec == wanted.spec])
    return Candidates([Candidate(kernel, where) for kernel, where in places.items()], lacking)


def _lacking(builds: Sequence[Manifest]) -> str:
    """Return what builds of a spec leave to other shards, in words; of each as it is in the root that has most."""
    least: dict[tuple[str, str], Manifest] = {}
    for build in sorted(builds, key=lambda build: len(build.left)):
        least.setdefault((build.spec_digest, build.toolchain), build)
    return "; ".join(
        f"the build of `{build.spec}` is not complete: {len(build.left)} of its kernels are left to other shards"
        for build in least.values()
        if build.left
    )


def _reported(wanted: Wanted) -> Candidates:
    try:
        kernels = wanted.reported()
    except OSError as error:
        return Candidates([], f"the report `{wanted.report}` can't be read: {error.strerror}")
    problem = "" if kernels else f"the report `{wanted.report}` names no kernel"
    return Candidates([Candidate(kernel, ()) for kernel in kernels], problem)


def preload(caches: Sequence[Cache], wanted: Wanted) -> Preloaded:
    """Load and initialize the kernels that are wanted for this device.

    The caches have the same roots, for a provider each. Raises `MachineError` if there is no GPU, or GPUs that differ.
    """
    device = caches[0].device
    found = [(cache, candidates(cache, wanted, device)) for cache in caches]
    has_any = any(of_cache.kernels for _, of_cache in found)
    said = [of_cache for _, of_cache in found if of_cache.kernels] if has_any else [found[0][1]]
    problems = [of_cache.problem for of_cache in said if of_cache.problem]
    if wanted == Wanted() or not has_any:
        problems += [problem for cache in caches for problem in cache.unread_manifests()]
    loaded: dict[KernelId, Kernel] = {}
    missed: dict[KernelId, str] = {}
    for kernel_id, kernel in _each(found):
        if isinstance(kernel, Miss):
            missed[kernel_id] = f"kernel `{kernel_id[:12]}` does not load: {kernel.detail}"
            continue
        if not kernel.is_for(device):  # a report can be another machine's
            continue
        try:
            if device.present:
                kernel.initialize()
        except LoadError as error:
            problems.append(str(error))
            continue
        loaded[kernel_id] = kernel
    # Of several providers, one has it.
    problems += [problem for kernel_id, problem in missed.items() if kernel_id not in loaded]
    if not problems:
        return Preloaded(list(loaded.values()), None)
    roots, told = ", ".join(map(str, caches[0].roots)), "; ".join(dict.fromkeys(problems))
    return Preloaded(list(loaded.values()), CacheError(roots, f"can't preload: {told}", _HINT))


def _each(found: Sequence[tuple[Cache, Candidates]]) -> Iterator[tuple[KernelId, Kernel | Miss]]:
    for cache, of_cache in found:
        for candidate in of_cache.kernels:
            yield candidate.kernel, cache.load_first(candidate.kernel, candidate.places)

"""From a provider's key to a loaded kernel: the roots in their order, and why there is none if there is none."""

from __future__ import annotations

import functools
import logging
import re
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..cache import layout
from ..cache.fit import Fit
from ..cache.glance import absence, lacks, may_have
from ..cache.key import NO_FACTS, BlobDigest, Facts, KernelId, encode_key
from ..cache.library import Library
from ..cache.manifest import Manifest
from ..cache.origin import Origin
from ..cache.origins import Origins
from ..cache.outcome import FAULTS, Finding, Miss, MissReason
from ..cache.record import Record
from ..cache.seal import NOBODY, Vouchers
from ..cache.store import Root
from ..cache.toolchain import Toolchain
from ..cache.trust import Trust
from ..errors import CacheError, LoadError, MachineError, RecordError, UnstableKey, UntrustedError
from ..products import load
from ..providers.dsl.driver import Device
from ..providers.dsl.installation import DSL, runtime_library
from ..providers.registry import DEFAULT
from .device import job_device
from .kernel import Kernel, Opened
from .looks import Look, Looks
from .misses import first_of, telling
from .names import LookedUp
from .wheels import Wheel

if TYPE_CHECKING:
    from ..providers.protocol import Provider

_LOG = logging.getLogger("fa4_precompile")

# Of how many roots folders stay open: at five or six descriptors each, where a limit of 1,024 is common.
_MOST_KEPT = 8


Described = tuple[Record, "Origin | None", Sequence[str]]
"""A record, where its kernel comes from, and what keeps it from running here."""

_Tried = dict[tuple[int, str], list[Miss]]
"""Why kernels that seemed to be there were not loaded, by the place of their root and their toolchain."""


@dataclass
class _Known:
    """What a cache has found out.

    No `cached_property`: up to Python 3.11 it holds a lock, which a fork can leave held.
    """

    roots: Sequence[Root]
    looks: Looks
    device: Device | None = None
    is_open: bool = False
    opened: dict[KernelId, Opened] = field(default_factory=dict)
    loaded: dict[KernelId, Kernel] = field(default_factory=dict)
    kept: list[Root] | None = None  # whose folders stay open; None: nobody's
    catalog: Sequence[Described] | None = None


@dataclass
class Cache:
    """An ordered list of cache directories, as a job uses them.

    Guarantees
        A kernel that is returned has the bytes that its record states, was built from the provider's source that is
        installed here, for this device, and for the key that was asked. Nothing is written, no lock is taken, and
        nothing on disk makes a method raise: a root that can't answer falls through to the next.
    Not guaranteed
        That what is published after a root was first asked is seen, if it was built by another toolchain.
    Concurrency
        Any number of threads and processes. Two threads that ask for one kernel at once may both load it.
    Security
        As that of a `Root`: integrity, and a refusal of what others could have written.

    Attributes:
        roots: cache directories in the order of search.
        trust: whose files are loaded.
        provider: whose kernels they are.
        vouchers: fingerprints and keys that each root must have, sealed; then it does not matter who owns it.
        wheels: roots that are searched after the others: those of installed wheels.
        fit: how nearly what built a kernel has to be what is installed.
    """

    roots: Sequence[Path]
    trust: Trust = Trust.OWN
    provider: Provider = DEFAULT
    vouchers: Vouchers = NOBODY
    wheels: Sequence[Wheel] = ()
    fit: Fit = Fit.COMPATIBLE
    _known: _Known = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        named = [Root(Path(path), self.trust, self.vouchers) for path in self.roots]
        roots = named + [wheel.root(self.trust, self.vouchers) for wheel in self.wheels]
        self._known = _Known(roots, Looks(lambda: self.provider, self.fit))

    def prepare(self) -> None:
        """Do once what all lookups need: read what is installed here, and open the run-time libraries.

        Raises `MachineError` or `LoadError` if a part is missing.
        """
        _ = self._known.looks.run_time
        self._open_run_time()
        for root in self._known.roots:
            self._look(root)

    def shortfall(self) -> str:
        """Return why nothing of it can run in a process without the DSL, in words; nothing if something can."""
        try:
            if not self.has_toolchain:
                return self.why_unfit
        except MachineError as error:
            return str(error)
        if runtime_library() is None and not self._libraries():
            return f"no root has the run-time library that its kernels need; {self._what_brings_a_library()}"
        return ""

    def _what_brings_a_library(self) -> str:
        fitting = [toolchain for root in self._known.roots for toolchain in self._look(root).fitting.values()]
        if any(not toolchain.host_compiler for toolchain in fitting):
            return "building into it again adds that"
        built = fitting[0]
        wheel = f"{DSL}-libs-cu{built.dsl_cuda}=={built.dsl.get(DSL, '')}"
        return f"they were built on a machine of another kind, and `pip install --no-deps {wheel}` brings it"

    def library(self) -> tuple[BlobDigest, bytes] | None:
        """Return the newest run-time library of the roots that runs here: an older one may lack what kernels need.

        One that can't be read is passed over. None if there is none.
        """
        for _, root, library in self._libraries():
            try:
                return library.blob, root.blob(library)
            except FAULTS as error:
                _LOG.info("fa4-precompile: `%s` has no run-time library that can be used: %s", root.path, error)
        return None

    def _libraries(self) -> list[tuple[list[int], Root, Library]]:
        """Return the run-time libraries of what fits here, the newest first."""
        found: list[tuple[list[int], Root, Library]] = []
        for root in self._known.roots:
            fitting = self._look(root).fitting
            for library in root.libraries():
                if isinstance(library, Library) and (toolchain := fitting.get(library.toolchain)):
                    release = [toolchain.dsl_cuda, *map(int, re.findall(r"\d+", toolchain.dsl.get(DSL, "")))]
                    found.append((release, root, library))
        return sorted(found, key=lambda one: one[0], reverse=True)

    def keep_folders(self) -> None:
        """Keep the folders open that lookups go through, until `close`: of the first roots that have a kernel."""
        self._known.kept = []

    def close(self) -> None:
        """Close the folders that are kept open. What was loaded stays."""
        kept, self._known.kept = self._known.kept or [], None
        for root in kept:
            root.close()

    @property
    def has_toolchain(self) -> bool:
        """Whether a root has kernels that were built from what is installed here, whichever they are."""
        return any(self._look(root).fitting for root in self._known.roots)

    @property
    def why_unfit(self) -> str:
        """Why no root has such kernels, in words."""
        return first_of([miss for root in self._known.roots for miss in self._look(root).misses]).detail

    @property
    def inexact(self) -> Mapping[str, str]:
        """What differs in the toolchains that serve here and are not what is installed, in words, by id."""
        return self._known.looks.inexact

    def require_a_root(self) -> None:
        """Raise the error of the first root unless one of the roots is a cache to be used: one of `FAULTS`."""
        faults = []
        for root in self._known.roots:
            try:
                return root.require_layout()
            except (CacheError, UntrustedError, RecordError) as error:
                faults.append(error)
        raise faults[0]

    def refresh(self) -> None:
        """Look for toolchains again: another process may have published the first kernel of one."""
        self._known.looks.forget()

    @property
    def device(self) -> Device:
        """The device of this process. Raises `MachineError`; the driver is asked once, when a kernel is needed."""
        if self._known.device is None:
            self._known.device = job_device(self.provider.sms_variable)
        return self._known.device

    def resolve(self, slot: str, key: object, device: Device | None = None, facts: Facts = NO_FACTS) -> Kernel | Miss:
        """Return the kernel of a key as the provider looks it up in a slot, or why there is none.

        `device` is that of this process unless it is given; `facts` are the digests of functions in the key, by the
        names of the provider's arguments.
        """
        start = time.perf_counter()
        try:
            text = encode_key(key, passing=self.provider.passing)
            device = device or self.device
        except UnstableKey as error:
            return Miss(MissReason.KEY, str(error))
        except MachineError as error:
            return Miss(MissReason.DEVICE, str(error))
        wanted = LookedUp(slot, text, facts, device, self.has)
        looks: list[Look] = []
        tried: _Tried = {}
        for place, root in enumerate(self._known.roots):
            look = self._known.looks.at(root)
            looks.append(look)
            for toolchain in look.fitting:
                names = wanted.by(toolchain)
                if names.is_here or may_have(root, names.records):
                    found = self._load_one_of(root, toolchain, names.kernels, start)
                    if isinstance(found, Kernel):
                        return found
                    tried[place, toolchain] = found
        return self._why_none(looks, tried, wanted, start)

    def manifests(self, device: Device) -> list[tuple[Root, Manifest]]:
        """Return the manifests of builds for a device that fit what is installed here, by root."""
        built_for = device.arch, device.sms
        return [found for found in self.fitting_manifests() if (found[1].target.arch, found[1].target.sms) == built_for]

    def fitting_manifests(self) -> list[tuple[Root, Manifest]]:
        """Return the manifests of builds that fit what is installed here, for whatever device, by root."""
        return [
            (root, manifest)
            for root in self._known.roots
            for manifest in root.manifests()
            if isinstance(manifest, Manifest) and manifest.toolchain in self._look(root).fitting
        ]

    def unread_manifests(self) -> list[str]:
        """Return what is wrong with manifests that may fit what is installed here, in words."""
        found = []
        for root in self._known.roots:
            toolchains = self._look(root).fitting
            findings = [item for item in root.manifests() if isinstance(item, Finding)] if toolchains else []
            found += [f"`{root.path / it.path}` {it.problem}" for it in findings if _is_of(it.path, toolchains)]
        return found

    def load(self, root: Root, toolchain: str, kernel: KernelId) -> Kernel | Miss:
        """Return a kernel by its id, for instance one that a manifest names."""
        return self._load(root, toolchain, kernel, time.perf_counter())

    def load_first(self, kernel: KernelId, places: Sequence[tuple[Root, str]] = ()) -> Kernel | Miss:
        """Return a kernel by its id, from the first place that has it: a root and a toolchain, if not any that fits."""
        start = time.perf_counter()
        opened = self.open(kernel, places)
        return self._made(opened, start) if isinstance(opened, Opened) else opened

    def kernel_of(self, function: object) -> Kernel | None:
        """Return the kernel whose function was handed out; None if it is none of this cache's."""
        return next((kernel for kernel in self._known.loaded.values() if kernel.function is function), None)

    def has(self, kernel: KernelId) -> bool:
        """Return whether a kernel's blob is in the process."""
        return kernel in self._known.loaded or kernel in self._known.opened

    def open(self, kernel: KernelId, places: Sequence[tuple[Root, str]] = ()) -> Opened | Kernel | Miss:
        """Load the blob of a kernel, as `load_first`, and leave its function to who looks it up.

        This imports nothing, and takes nothing from a lookup of the same kernel but work.
        """
        misses: list[Miss] = []
        for root, toolchain in places or self._places(kernel):
            found: Opened | Kernel | Miss | None = self._known.loaded.get(kernel) or self._known.opened.get(kernel)
            if found is None:
                found = self._open(root, toolchain, kernel, time.perf_counter())
            if not isinstance(found, Miss):
                return found
            misses.append(found)
        return first_of(misses)

    def _places(self, kernel: KernelId) -> Sequence[tuple[Root, str]]:
        """Return where a kernel seems to be; all places if nowhere, which say why not."""
        places = [(root, toolchain) for root in self._known.roots for toolchain in self._look(root).fitting]
        return [(root, at) for root, at in places if may_have(root, [layout.record_path(at, kernel)])] or places

    @property
    def catalog(self) -> Sequence[Described]:
        """All records of all roots; read once, for explanations."""
        if self._known.catalog is None:
            self._known.catalog = list(self._records())
        return self._known.catalog

    def _records(self) -> Iterator[Described]:
        seen: set[KernelId] = set()
        for root in self._known.roots:
            toolchains = [item for item in root.toolchains() if isinstance(item, Toolchain)]
            unfit = {item.id: self._known.looks.differences(item) for item in toolchains}
            origins = Origins(root)
            for record in root.records():
                if isinstance(record, Finding) or record.id in seen:
                    continue
                seen.add(record.id)
                yield record, origins.of(record), unfit.get(record.toolchain, ["no toolchain file"])

    def _open_run_time(self) -> None:
        if not self._known.is_open:
            load.open_run_time(self.library)
            self._known.is_open = True

    def _why_none(self, looks: Sequence[Look], tried: _Tried, wanted: LookedUp, start: float) -> Kernel | Miss:
        """Return why no root has a kernel, by what was seen of each; or the kernel, if one has got it meanwhile."""
        misses: list[Miss] = []
        of_no_use: list[Miss] = []
        for place, (root, look) in enumerate(zip(self._known.roots, looks, strict=True)):
            of_root: list[Miss] = []
            for toolchain in look.fitting:
                names = wanted.by(toolchain)
                found: Kernel | list[Miss] | None = tried.get((place, toolchain))
                if found is None and lacks(root, names.records):
                    found = [absence(root, names.kernels[0])]
                elif found is None:
                    found = self._load_one_of(root, toolchain, names.kernels, start)
                if isinstance(found, Kernel):
                    return found
                of_root += found
            misses += telling(of_root)
            of_no_use += [] if look.fitting else look.misses
        return first_of(misses + of_no_use)

    def _load_one_of(
        self, root: Root, toolchain: str, kernels: Sequence[KernelId], start: float
    ) -> Kernel | list[Miss]:
        misses = []
        for kernel in kernels:
            found = self._load(root, toolchain, kernel, start)
            if isinstance(found, Kernel):
                return found
            misses.append(found)
        return misses

    def _look(self, root: Root) -> Look:
        """Return the toolchains of a root whose kernels run here, the installed one first; else why there is none."""
        return self._known.looks.at(root)

    def _load(self, root: Root, toolchain: str, kernel: KernelId, start: float) -> Kernel | Miss:
        if kernel in self._known.loaded:
            return self._known.loaded[kernel]
        opened = self._known.opened.get(kernel) or self._open(root, toolchain, kernel, start)
        return opened if isinstance(opened, Miss) else self._made(opened, start)

    def _made(self, opened: Opened, start: float) -> Kernel | Miss:
        """Return a kernel whose blob is loaded; `start` is when somebody asked for it."""
        reference = opened.reference
        try:
            function = load.make_function(opened.address, reference.keywords)
        except LoadError as error:
            return Miss(MissReason.LOAD, str(error))
        seconds = time.perf_counter() - start
        loaded = Kernel(reference, opened.root, function, seconds, opened.library, opened.origin)
        return self._known.loaded.setdefault(reference.id, loaded)

    def _open(self, root: Root, toolchain: str, kernel: KernelId, start: float) -> Opened | Miss:
        kept = self._known.kept
        if kept is not None and len(kept) < _MOST_KEPT and root not in kept:
            kept.append(root)
            root.keep_folders()
        found = root.find(toolchain, kernel)
        if isinstance(found, Miss):
            return found
        reference = found.reference
        try:
            self._open_run_time()
            library, address = load.open_blob(found.blob, reference.blob, reference.symbol)
        except LoadError as error:
            return Miss(MissReason.LOAD, str(error))
        origin = functools.partial(root.origin, toolchain, kernel)
        opened = Opened(reference, root.path, address, time.perf_counter() - start, library, origin)
        return self._known.opened.setdefault(kernel, opened)


def _is_of(path: str, toolchains: Container[str]) -> bool:
    """Return whether a manifest's path is one of these toolchains', or of a folder that holds all manifests."""
    return path.count("/") == 0 or path.split("/")[1] in toolchains

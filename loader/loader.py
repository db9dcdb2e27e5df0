"""The loader: the compile caches of a process's providers replaced by mappings that answer from a `Cache` each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import ModuleType

from ..providers.loaded import is_executing, loaded_modules, loaded_modules_of, loaded_slots
from . import tripwire
from .behavior import Behavior, Shared
from .imports import ImportWatcher, call_when_executed
from .preload import preload
from .resolve import Cache, Kernel
from .served import Served
from .stats import Counts

Discover = Callable[[ModuleType], "Cache | None"]
"""Says of a module that has been imported whether its package is one to serve, and from which cache."""


class Loader:
    """Serves the providers of a process, from `start` to `stop`: those that were named, and those that are discovered.

    Unless `on_miss` is `error`, nothing of ours raises into the job.
    """

    def __init__(self, caches: Sequence[Cache], behavior: Behavior, discover: Discover | None = None) -> None:
        self._shared = Shared(behavior)
        self._discover = discover
        self._is_attached = False
        self._tripwire = tripwire.Tripwire(lambda error: self.counts.refused(error.function))
        self.served = [Served(cache, self._shared) for cache in caches]
        self.watcher = _Watcher(self, [_INTERFACE] if discover else [])
        for one in self.served:
            self._watch(one)

    @property
    def counts(self) -> Counts:
        """What happened so far."""
        return self._shared.counts

    @property
    def strict(self) -> bool:
        """Whether nothing may be compiled."""
        return self._shared.strict

    def require_ready(self) -> None:
        """Raise what would keep a strict loader from starting, before anything of the process is changed.

        Raises `CacheError` or `UntrustedError` if no root can be used, `MachineError` or `LoadError` if a provider is
        imported already and something that its kernels need is missing.
        """
        if not self.strict:
            return
        for one in self.served:
            one.cache.require_a_root()
        tripwire.require_code_maker()
        for one in self.served:
            if loaded_slots(one.cache.provider):
                one.cache.prepare()

    def start(self) -> None:
        """Replace the slots of the providers, now or when they are imported. If that fails, nothing of it stays."""
        try:
            sys.meta_path.insert(0, self.watcher)
            dsl = sys.modules.get(tripwire.MODULE)
            if self.strict and dsl is not None and not is_executing(dsl):
                self._tripwire.set(dsl)
            with self._shared.harmless():
                for module in [*self._loaded(), *loaded_modules(tripwire.MODULE)]:
                    if is_executing(module):
                        call_when_executed(module, self.executed)
                for one in list(self.served):
                    self._attach(one)
                for module in loaded_interfaces() if self._discover else ():
                    if not is_executing(module):
                        self._take_up(module)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Put back what was there."""
        if self.watcher in sys.meta_path:
            sys.meta_path.remove(self.watcher)
        self._tripwire.remove()
        self.counts.close()
        for one in reversed(self.served):  # each may have watched the compiler, one over the other
            one.give_back()

    def executed(self, module: ModuleType) -> None:
        """Take note of a module of a provider's, or of the DSL's, that has just been imported."""
        if self.watcher not in sys.meta_path:  # stopped since its import began
            return
        with self._shared.harmless():  # in the middle of the job's import
            if module.__name__ == tripwire.MODULE:
                if self.strict:
                    self._tripwire.set(module)
                return
            for one in self.served:
                if one.has(module):
                    self._attach(one, module)
                    return
            self._take_up(module)

    def preload(self, spec: str | None = None) -> Sequence[Kernel]:
        """Load and initialize all kernels of the manifests for this device, of one spec or of all.

        What is missing is said, and in strict mode raises `CacheError`; so does a cache with no manifest for it.
        """
        preloaded = preload([one.cache for one in self.served], spec)
        for kernel in preloaded.kernels:
            self.counts.preloaded(kernel)
        short = preloaded.short
        if short and self.strict:
            raise short
        if short:
            self._shared.say_once(str(short), f"{short}; the kernels are looked up when they are called")
        return preloaded.kernels

    def _loaded(self) -> list[ModuleType]:
        own = [module for one in self.served for module in loaded_modules_of(one.cache.provider)]
        return [*own, *(loaded_interfaces() if self._discover else ())]

    def _take_up(self, module: ModuleType) -> None:
        """Serve the package that a module is the interface of, if it is one to serve."""
        cache = self._discover(module) if self._discover is not None else None
        if cache is None or any(one.cache.provider == cache.provider for one in self.served):
            return
        one = Served(cache, self._shared)
        self.served.append(one)
        self._watch(one)
        self._attach(one)
        self._attach(one, module)  # which may be at the end of its import

    def _watch(self, one: Served) -> None:
        provider = one.cache.provider
        self.watcher.watch(provider.package, *provider.beside)

    def _attach(self, one: Served, module: ModuleType | None = None) -> None:
        provider = one.cache.provider
        modules = loaded_modules_of(provider) if module is None else [module]
        slots = loaded_slots(provider) if module is None else provider.slots_of(module)
        one.say_unfound([loaded for loaded in modules if loaded is module or not is_executing(loaded)])
        if one.attach(slots) and not self._is_attached:
            self._is_attached = True
            if (attached := self._shared.behavior.attached) is not None:
                attached(self.counts)


_INTERFACE = ".interface"


def loaded_interfaces() -> list[ModuleType]:
    """Return the modules of this process that may be the interface of a package to serve."""
    names = [name for name in list(sys.modules) if name.endswith(_INTERFACE)]
    return [module for name in names if (module := sys.modules.get(name)) is not None]


class _Watcher(ImportWatcher):
    """The import watcher of a loader; by it a process knows that a loader is installed."""

    def __init__(self, loader: Loader, suffixes: Sequence[str]) -> None:
        self.loader = loader
        super().__init__([tripwire.MODULE], loader.executed, suffixes)


def installed_loader() -> Loader | None:
    """Return the loader that is installed in this process."""
    for finder in sys.meta_path:
        if isinstance(finder, _Watcher):
            return finder.loader
    return None

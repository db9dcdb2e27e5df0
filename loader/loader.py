"""The loader: the compile caches of a process's providers replaced by mappings that answer from a `Cache` each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType

from ..errors import MachineError
from ..providers.loaded import is_executing, loaded_modules, loaded_modules_of, loaded_slots, plain_names
from ..providers.registry import carried_in
from . import tripwire
from .absence import INTERFACE, Absence, folder_of, package_of
from .background import Background
from .behavior import Behavior, Shared
from .imports import ImportWatcher, call_when_executed
from .kernel import Kernel
from .preload import preload
from .resolve import Cache
from .served import Served
from .stats import Counts
from .wanted import Wanted, When

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
        self._absence = behavior.absence
        self.watcher = _Watcher(self, [INTERFACE] if discover else [])
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
        self.served[0].cache.require_a_root()  # all have the same
        tripwire.require_code_maker()
        self._find_all()
        for one in self.served:
            if loaded_slots(one.cache.provider):
                one.cache.prepare()

    def start(self) -> None:
        """Replace the slots of the providers, now or when they are imported. If that fails, nothing of it stays."""
        try:
            sys.meta_path.insert(0, self.watcher)
            if self._absence is not None:
                self._keep_compiler_away(self._absence)
            dsl = sys.modules.get(tripwire.MODULE)
            if self.strict and dsl is not None and not is_executing(dsl):
                self._tripwire.set(dsl)
            with self._shared.harmless():
                self._find_all()
                self._wait_for([*self._interfaces(), *loaded_modules(tripwire.MODULE)])
            for one in self.served:
                with self._shared.harmless():
                    self._serve(one)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Put back what was there."""
        if self.watcher in sys.meta_path:
            sys.meta_path.remove(self.watcher)
        self._tripwire.remove()
        self.counts.close()
        self._shared.undo.close()

    def executing(self, module: ModuleType) -> None:
        """Give a module that is about to be executed stand-ins for its compiler, if it is to have them."""
        if self._absence is not None and self.watcher in sys.meta_path:
            found = self._absence.executing(module, [one.cache.provider for one in self.served])
            if found is not None:
                self.watcher.watch(found)

    def executed(self, module: ModuleType) -> None:
        """Take note of a module of a provider's, or of the DSL's, that has just been imported."""
        if self.watcher not in sys.meta_path:  # stopped since its import began
            return
        name = str(plain_names(module).get("__name__", ""))
        is_absent = self._absence is not None and self._absence.has_module(name)
        with self._shared.harmless(can_compile=not is_absent):  # in the middle of the job's import
            if name == tripwire.MODULE:
                if self.strict:
                    self._tripwire.set(module)
                return
            for one in self.served:
                if one.has(name):
                    self._attach(one, [module])
                    return
            if (found := self._find(module)) is not None:
                self._serve(found, module)

    def preload(self, wanted: Wanted) -> Sequence[Kernel]:
        """Load and initialize the kernels that are wanted.

        What is missing is said, and in strict mode raises `CacheError`; so does a cache with no manifest for it.
        """
        # The default's package is served where nobody names one, and need not be there.
        here = [one.cache for one in self.served if one.cache.provider.folder is not None]
        return self._preload(here or [self.served[0].cache], wanted)

    # How it is done

    def _preload(self, caches: Sequence[Cache], wanted: Wanted) -> Sequence[Kernel]:
        preloaded = preload(caches, wanted)
        for kernel in preloaded.kernels:
            self.counts.preloaded(kernel)
        short = preloaded.short
        if short and self.strict:
            raise short
        if short:
            self._shared.say_once(str(short), f"{short}; the kernels are looked up when they are called")
        return preloaded.kernels

    def _begin_to_preload(self, one: Served) -> None:
        """Load what a provider that has just been attached is to have before it needs it, now or in the background."""
        preloading, shared = self._shared.behavior.preloading, self._shared
        if preloading is None or shared.behavior.fake is not None:
            return
        if preloading.when is When.BACKGROUND:
            environment, say = shared.behavior.environment, lambda words: shared.say_once(words, words)
            background = Background(one.cache, preloading.wanted, environment, self.counts.preloaded, say)
            shared.undo.callback(background.stop)
            background.start()
        elif preloading.when is When.ATTACHED and (one.cache.has_toolchain or not one.is_found):
            try:
                self._preload([one.cache], preloading.wanted)
            except MachineError as error:
                if self.strict:
                    raise
                shared.say_once(str(error), f"can't preload: {error}; the kernels are looked up when they are called")

    def _keep_compiler_away(self, absence: Absence) -> None:
        """See to it that what is served is imported with stand-ins, also what is in the middle of its import."""
        self.watcher.watch(*absence.users)
        here = [one.cache.provider for one in self.served]
        for interface in self._interfaces():  # in the middle of the import that has started us
            package, folder = package_of(interface), folder_of(interface)
            if package is not None and folder is not None and is_executing(interface):
                provider = None if any(one.package == package for one in here) else carried_in(package, folder)
                if provider is not None:
                    self.watcher.watch(package)
                    here.append(provider)
        for provider in here:
            objection = absence.begin(provider, loaded_modules_of(provider))
            if objection is not None:
                self._shared.say_once(("compiler", provider.package), objection)

    def _find_all(self) -> None:
        for module in list(self._interfaces()):
            if not is_executing(module):
                self._find(module)

    def _interfaces(self) -> Iterator[ModuleType]:
        """Yield the modules of this process that may be the interface of a package to serve."""
        for name in list(sys.modules) if self._discover else ():
            if name.endswith(INTERFACE) and (module := sys.modules.get(name)) is not None:
                yield module

    def _find(self, module: ModuleType) -> Served | None:
        """Return what is to be served from now on, as a module shows; None if it shows nothing new."""
        cache = self._discover(module) if self._discover is not None else None
        if cache is None or any(one.cache.provider == cache.provider for one in self.served):
            return None
        found = next((one for one in self.served if one.waits_for(cache.provider)), None)
        if found is not None:
            found.cache.provider = cache.provider
        else:
            found = Served(cache, self._shared, is_found=True)
            self.served.append(found)
        self._watch(found)
        return found

    def _watch(self, one: Served) -> None:
        provider = one.cache.provider
        self.watcher.watch(provider.package, *provider.beside)

    def _serve(self, one: Served, executed: ModuleType | None = None) -> None:
        """Attach to all modules of a provider that are here, now or when their import ends; one has just come to it."""
        modules = loaded_modules_of(one.cache.provider)
        self._wait_for([module for module in modules if module is not executed])
        self._attach(one, [module for module in modules if module is executed or not is_executing(module)])

    def _wait_for(self, modules: Sequence[ModuleType]) -> None:
        for module in modules:
            if is_executing(module):
                call_when_executed(module, self.executed)

    def _attach(self, one: Served, modules: Sequence[ModuleType]) -> None:
        is_first = not one.is_attached
        if one.attach(modules):
            if not self._is_attached and (attached := self._shared.behavior.attached) is not None:
                attached(self.counts)
            self._is_attached = True
            if is_first:
                self._shared.suspicion.prepare()
                self._begin_to_preload(one)
        one.say_unfound(modules)


class _Watcher(ImportWatcher):
    """The import watcher of a loader; by it a process knows that a loader is installed."""

    def __init__(self, loader: Loader, suffixes: Sequence[str]) -> None:
        self.loader = loader
        super().__init__([tripwire.MODULE], loader.executed, suffixes, loader.executing)


def installed_loader() -> Loader | None:
    """Return the loader that is installed in this process."""
    for finder in sys.meta_path:
        if isinstance(finder, _Watcher):
            return finder.loader
    return None

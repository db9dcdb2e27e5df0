"""The loader: a provider's compile caches replaced by mappings that answer from a `Cache`.

A hit costs what a lookup in a dict costs. Everything else happens once for each key, in `Loader.contains`.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

from ..cache.key import KeyText, display, encode_key
from ..cache.outcome import Miss, MissReason
from ..errors import Fa4PrecompileError, KernelMissing, UnstableKey
from ..providers.loaded import is_executing, is_of, loaded_modules, loaded_modules_of, loaded_slots
from ..providers.slots import Slot
from . import tripwire, voice
from .by_value import by_value, tensor_arguments
from .config import OnMiss
from .explain import Explanation, explain
from .imports import ImportWatcher, call_when_executed
from .preload import preload
from .resolve import Cache, Kernel
from .slot import ServedSlot
from .stats import Counts

_LOG = logging.getLogger("fa4_precompile")

# Where the very key is in the cache, for other circumstances: a spec with the call was built already.
_BUILT_OTHERWISE = (MissReason.SM_COUNT, MissReason.TOOLCHAIN)


class Keeper(Protocol):
    """Who publishes what a job compiles, for `OnMiss.STORE`. None of its methods raises."""

    def watch(self) -> None:
        """Take note from now on of what the provider hands to its compiler."""

    def close(self) -> None:
        """End that."""

    def wait(self, slot: str, key: object) -> Kernel | None:
        """Return a kernel that another process publishes meanwhile, or None if this one is to compile it."""

    def keep(self, slot: str, key: object, function: Any, seconds: float) -> str | None:
        """Publish a compiled kernel and return its id; None if it could not be published."""


@dataclass(frozen=True)
class Behavior:
    """How a loader meets a miss.

    Attributes:
        on_miss: what happens.
        environment: the job's variables.
        attached: called once, when the provider is in the process and its slots are ours.
        keeper: needed for `OnMiss.STORE`.
    """

    on_miss: OnMiss
    environment: Mapping[str, str]
    attached: Callable[[Counts], None] | None = None
    keeper: Keeper | None = None


class Loader:
    """Stands in for a provider's compile caches, from `start` to `stop`.

    Guarantees
        What a slot answers is what the provider compiled for that key, from its memory, or what the cache has for it.
        Unless `on_miss` is `error`, nothing of ours raises into the job.
    Concurrency
        Any thread of the process can look up, also a forked child. There is no lock that a fork could leave held: two
        threads that look up one key at once may both load it, and agree on one function.
    """

    def __init__(self, cache: Cache, behavior: Behavior) -> None:
        self.cache = cache
        self.counts = Counts()
        self._behavior = behavior
        self._replaced: list[tuple[Slot, Any]] = []
        self._said: set[object] = set()
        self._counted: dict[tuple[str, object], object] = {}
        self._here = _Here()
        self._tripwire = tripwire.Tripwire(lambda error: self.counts.refused(error.function))
        self.watcher = _Watcher(self)

    @property
    def strict(self) -> bool:
        """Whether nothing may be compiled."""
        return self._behavior.on_miss is OnMiss.ERROR

    def require_ready(self) -> None:
        """Raise what would keep a strict loader from starting, before anything of the process is changed.

        Raises `CacheError` or `UntrustedError` if no root can be used, `MachineError` or `LoadError` if the provider is
        imported already and something that its kernels need is missing.
        """
        if not self.strict:
            return
        self.cache.require_a_root()
        tripwire.require_code_maker()
        if loaded_slots(self.cache.provider):
            self.cache.prepare()

    def start(self) -> None:
        """Replace the slots of the provider, now or when it is imported. If that fails, nothing of it stays."""
        try:
            sys.meta_path.insert(0, self.watcher)
            dsl = sys.modules.get(tripwire.MODULE)
            if self.strict and dsl is not None and not is_executing(dsl):
                self._tripwire.set(dsl)
            with self._harmless():
                own = loaded_modules_of(self.cache.provider)
                for module in [*own, *loaded_modules(tripwire.MODULE)]:
                    if is_executing(module):
                        call_when_executed(module, self.executed)
                self._attach(loaded_slots(self.cache.provider))
                self._say_unfound([module for module in own if not is_executing(module)])
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Put back what was there."""
        if self.watcher in sys.meta_path:
            sys.meta_path.remove(self.watcher)
        self._tripwire.remove()
        if self._behavior.keeper is not None:
            self._behavior.keeper.close()
        self.counts.close()
        for slot, original in self._replaced:
            slot.put(original)
        self._replaced.clear()

    def executed(self, module: ModuleType) -> None:
        """Take note of a module of the provider's, or of the DSL's, that has just been imported."""
        if self.watcher not in sys.meta_path:  # stopped since its import began
            return
        with self._harmless():  # in the middle of the job's import
            if module.__name__ == tripwire.MODULE:
                if self.strict:
                    self._tripwire.set(module)
            elif is_of(module.__name__, self.cache.provider):
                self._attach(self.cache.provider.slots_of(module))
                self._say_unfound([module])

    def preload(self, spec: str | None = None) -> Sequence[Kernel]:
        """Load and initialize all kernels of the manifests for this device, of one spec or of all.

        What is missing is said, and in strict mode raises `CacheError`; so does a cache with no manifest for it.
        """
        preloaded = preload(self.cache, spec)
        for kernel in preloaded.kernels:
            self.counts.preloaded(kernel)
        short = preloaded.short
        if short and self.strict:
            raise short
        if short:
            self._say_once(str(short), f"{short}; the kernels are looked up when they are called")
        return preloaded.kernels

    # What the slots ask

    def contains(self, slot: ServedSlot, key: object) -> bool:
        """Answer for a key that the slot does not have in its memory."""
        try:
            return self._contains(slot, key)
        except Exception as error:
            if self.strict:
                raise
            self._say_fault(slot, error)
        self._here.start = time.perf_counter()
        with self._unharmed():
            if key in slot.original:
                dict.__setitem__(slot, key, slot.original[key])
                return True
        return False

    def _contains(self, slot: ServedSlot, key: object) -> bool:
        found = self.cache.resolve(slot.name, key)
        lookup = key
        if isinstance(found, Miss) and found.reason is MissReason.KEY:
            lookup = self._lookup_key(slot, key)
            if lookup is not key:
                if dict.__contains__(slot, lookup):
                    self._here.pair = key, dict.__getitem__(slot, lookup)
                    return True
                found = self.cache.resolve(slot.name, lookup)
        function = self._function(slot, lookup, found)
        if function is None:
            self._here.start = time.perf_counter()
            return False
        dict.__setitem__(slot, lookup, function)
        if lookup is not key:
            self._here.pair = key, function
        return True

    def function_of(self, slot: ServedSlot, key: object) -> Any:
        """Return the function of a key that `contains` or `remember` has just seen, though its tensors have no hash."""
        seen, function = self._here.pair
        if seen is key:
            return function
        lookup = self._lookup_key(slot, key)
        if lookup is key:
            raise KeyError(key)
        return dict.__getitem__(slot, lookup)

    def remember(self, slot: ServedSlot, key: object, function: Any) -> None:
        """Remember what the provider compiled, and publish it if that is asked for."""
        seconds = time.perf_counter() - self._here.start
        try:
            lookup = self._lookup_key(slot, key)
        except Exception as error:
            self._say_fault(slot, error)
            lookup = key
        dict.__setitem__(slot, lookup, function)
        if lookup is not key:
            self._here.pair = key, function
        self.counts.compiled(seconds)
        with self._unharmed():
            slot.original[lookup] = function
        if self._behavior.keeper is not None:
            stored = self._behavior.keeper.keep(slot.name, lookup, function, seconds)
            if stored is not None:
                self.counts.stored(stored)

    # How it is done

    def _attach(self, slots: Sequence[Slot]) -> None:
        fresh = [slot for slot in slots if not isinstance(slot.cache, ServedSlot)]
        if not fresh:
            return
        self.cache.prepare()
        if self._behavior.keeper is not None:
            self._behavior.keeper.watch()
        if self._behavior.attached is not None and not self._replaced:
            self._behavior.attached(self.counts)
        for slot in fresh:
            original = slot.cache
            self._replaced.append((slot, original))
            slot.put(ServedSlot(self, slot.name, original))

    def _say_unfound(self, modules: Sequence[ModuleType]) -> None:
        """Say, in strict mode, which caches of modules nobody answers for: what they lack raises."""
        for module in modules if self.strict else ():
            for place in self.cache.provider.unfound(module):
                self._say_once(
                    ("unfound", module.__name__, place),
                    f"{self.cache.provider.title} keeps what it compiles where it can't be found, {place} of "
                    f"`{module.__name__}`; in strict mode such a compile raises",
                )

    def _function(self, slot: ServedSlot, key: object, found: Kernel | Miss) -> Any:
        """Return the function that was found, else the provider's own; None if it is to be compiled."""
        if isinstance(found, Kernel):
            # Of the threads that look a key up at once, one counts it.
            token = object()
            if self._counted.setdefault((slot.name, key), token) is token:
                self.counts.resolved(found)
            return found.function
        self._missed(slot, key, found)
        with self._unharmed():
            if key in slot.original:  # its memory from before us, or its own disk cache
                return slot.original[key]
        if self._behavior.keeper is not None:
            kept = self._behavior.keeper.wait(slot.name, key)
            if kept is not None:
                self.counts.resolved(kept)
                return kept.function
        return None

    def _missed(self, slot: ServedSlot, key: object, miss: Miss) -> None:
        if self._behavior.on_miss in (OnMiss.COMPILE, OnMiss.STORE):
            self.counts.missed(miss.reason.value)
            return
        provider = self.cache.provider
        named = provider.named_key(slot.name, key)
        try:
            text: KeyText | None = encode_key(key, list(named))
        except UnstableKey as unstable:  # said with the position's name
            text, miss = None, Miss(miss.reason, str(unstable))
        error = self._why(slot, text, {name: display(value) for name, value in named.items()}, miss)
        self.counts.missed(error.reason)
        if self.strict:
            raise error
        said = miss.detail if text is None else text
        self._say_once((slot.name, said), f"{error}\n  {provider.title} compiles it instead, unless it has it already")

    def _why(
        self, slot: ServedSlot, key: KeyText | None, key_fields: Mapping[str, object], miss: Miss
    ) -> KernelMissing:
        """Return the error that says why there is no kernel, as far as it can be explained."""
        provider, environment = self.cache.provider, self._behavior.environment
        axes, lines = None, ""
        explanation = Explanation(miss.reason, [miss.detail])
        try:
            if any(one.reason is MissReason.ABSENT for one in (miss, *miss.others)):
                frame = sys._getframe(1)
                axes = provider.observe(frame)
                lines = provider.spec_lines(frame, environment)
            explanation = explain(self.cache, miss, slot.name, key, key_fields, environment, axes)
        except Exception:  # the explanation is not worth the job
            _LOG.debug("a miss could not be explained", exc_info=True)
        return KernelMissing(
            slot.name,
            key_fields,
            explanation.reason.value,
            explanation.details,
            explanation.nearest,
            explanation.missing_env,
            lines if explanation.reason not in _BUILT_OTHERWISE else "",
        )

    def _lookup_key(self, slot: ServedSlot, key: object) -> object:
        """Return a key with each tensor that holds one number replaced by it; the key itself if there is none."""
        found = by_value(key)
        if found is not key:
            arguments = tensor_arguments(sys._getframe(1), self.cache.provider.package)
            names = ", ".join(f"`{name}`" for name in arguments) or "an argument"
            self._say_once(
                ("value", slot.name, names),
                f"{names} of the call is a tensor that holds one number and gets into the key of slot `{slot.name}`; "
                "it is looked up by its value, which waits for the GPU in each call. Pass an int",
            )
        return found

    def _say_fault(self, slot: ServedSlot, error: Exception) -> None:
        """Say a fault of ours, after which the job goes on as it would without us."""
        self._say_once(
            ("fault", slot.name, type(error)),
            f"a lookup in slot `{slot.name}` failed: {type(error).__name__}: {error}; "
            f"{self.cache.provider.title} looks for itself",
        )

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        """Keep a fault of ours from a job that is not strict: it compiles as without us, and is told so once."""
        try:
            yield
        except Exception as error:
            if self.strict:
                raise
            what = str(error) if isinstance(error, Fa4PrecompileError) else f"{type(error).__name__}: {error}"
            self._say_once(what, f"{what}; kernels are compiled as without fa4-precompile")

    def _say_once(self, what: object, message: str) -> None:
        if what not in self._said:
            self._said.add(what)
            voice.warn(message)

    @contextmanager
    def _unharmed(self) -> Iterator[None]:
        """Go on after a fault of the provider's own cache: the kernel is in our hands, or will be compiled."""
        try:
            yield
        except Exception:
            _LOG.debug("the provider's own cache failed", exc_info=True)


class _Here(threading.local):
    """What a thread has just been told: the last key that was looked up by value, and when the last miss was."""

    pair: tuple[object, Any] = (None, None)
    start: float = 0.0


class _Watcher(ImportWatcher):
    """The import watcher of a loader; by it a process knows that a loader is installed."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader
        provider = loader.cache.provider
        super().__init__([provider.package, *provider.beside, tripwire.MODULE], loader.executed)


def installed_loader() -> Loader | None:
    """Return the loader that is installed in this process."""
    for finder in sys.meta_path:
        if isinstance(finder, _Watcher):
            return finder.loader
    return None

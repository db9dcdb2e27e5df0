"""What is served of one provider: its compile caches, answered from a `Cache`.

A hit costs what a lookup in a dict costs. Everything else happens once for each key, in `Served.contains`.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..cache.description import Description
from ..cache.key import KeyText, display, encode_key
from ..cache.outcome import Miss, MissReason
from ..errors import KernelMissing, UnstableKey
from ..providers.loaded import is_of, is_same
from ..providers.recognizer import Recognized
from ..providers.slots import launch_nothing
from .behavior import Shared
from .by_value import by_value, tensor_arguments
from .choices import OnMiss
from .cuda import load_if_captured
from .explain import Explanation, explain
from .kernel import Kernel
from .resolve import Cache
from .slot import ServedSlot

if TYPE_CHECKING:
    from ..providers.protocol import Provider

_LOG = logging.getLogger("fa4_precompile")

# Where the very key is in the cache, for other circumstances: a spec with the call was built already.
_BUILT_OTHERWISE = (MissReason.SM_COUNT, MissReason.TOOLCHAIN)

# What recordings say of a lookup; of one that was missed, they say why.
_HIT, _FAKE = "hit", "fake"

_NO_COMPILER = "this job runs without the compiler, so nothing else can answer"


class Served:
    """A provider whose compile caches are replaced, from `attach` to the end of what it shares.

    Guarantees
        What a slot answers is what the provider compiled for that key, from its memory, or what the cache has for it.
        Unless the job is strict, nothing of ours raises into it.
    Concurrency
        Any thread of the process can look up, also a forked child. There is no lock that a fork could leave held: two
        threads that look up one key at once may both load it, and agree on one function.
    """

    def __init__(self, cache: Cache, shared: Shared, is_found: bool = False) -> None:
        self.cache = cache
        self._shared = shared
        self.is_found = is_found  # in the process, and nobody has named it
        self._keeper = shared.behavior.keeper(cache) if shared.behavior.keeper is not None else None
        self.is_attached = False
        self._counted: dict[tuple[str, object], object] = {}
        self._here = _Here()
        self._recognizer = cache.provider.recognizer()
        self._fake = shared.behavior.fake
        if self._fake is not None:
            cache.provider.fake(self._fake)

    def has(self, module: str) -> bool:
        """Return whether a module's name is that of one of the provider's."""
        return is_of(module, self.cache.provider)

    def waits_for(self, provider: Provider) -> bool:
        """Return whether a provider is the folder that was named, and that nobody had loaded yet."""
        mine, loaded = self.cache.provider, provider.folder
        if self.is_attached or not mine.passing or mine.folder is None or loaded is None:
            return False
        return is_same(mine.folder, loaded)

    def attach(self, modules: Sequence[ModuleType]) -> bool:
        """Put ours in the place of modules' compile caches, and return whether one of them was not ours yet."""
        slots = [slot for module in modules for slot in self.cache.provider.slots_of(module)]
        fresh = [slot for slot in slots if not isinstance(slot.cache, ServedSlot)]
        if not fresh:
            return False
        if self._fake is None:
            self.cache.prepare()
            self.cache.keep_folders()
            self._shared.undo.callback(self.cache.close)
            self._say_inexact()
        if not self.is_attached and self._keeper is not None:
            self._keeper.watch()
            self._shared.undo.callback(self._keeper.close)
        if not self.is_attached:
            self._recognizer.watch()
            self._shared.undo.callback(self._recognizer.close)
        self.is_attached = True
        for slot in fresh:
            original = slot.cache
            if not isinstance(original, ServedSlot):  # else two modules have it
                self._shared.undo.callback(slot.put, original)
                slot.put(ServedSlot(self, slot.name, original))
        for module in modules if self._fake is not None else ():
            self._shared.undo.enter_context(self.cache.provider.fake_calls(module))
        return True

    def say_unfound(self, modules: Sequence[ModuleType]) -> None:
        """Say, in strict mode, which caches of modules nobody answers for: what they lack raises."""
        provider = self.cache.provider
        # Without the compiler, what needs it says so itself.
        for module in modules if self._shared.strict and not self._is_absent else ():
            for place in provider.unfound(module):
                self._say_once(
                    ("unfound", module.__name__, place),
                    f"{provider.title} keeps what it compiles where it can't be found, {place} of "
                    f"`{module.__name__}`; in strict mode such a compile raises",
                )

    def _say_inexact(self) -> None:
        """Say what differs where kernels that another toolchain built are served, and have it counted."""
        inexact = self.cache.inexact
        self._shared.counts.learn(inexact)
        if inexact:
            package, differences = self.cache.provider.package, ", or ".join(dict.fromkeys(inexact.values()))
            what = f"kernels of `{package}` can be those of another toolchain than is installed: {differences}"
            self._say_once("inexact", f"{what}; `FA4_PRECOMPILE_TOOLCHAIN=exact` takes none of them")

    @property
    def _is_absent(self) -> bool:
        """Whether the provider was imported without its compiler, so that nothing else can answer."""
        absence = self._shared.behavior.absence
        return absence is not None and absence.has(self.cache.provider)

    # What the slots ask

    def contains(self, slot: ServedSlot, key: object) -> bool:
        """Answer for a key that the slot does not have in its memory."""
        try:
            return self._contains(slot, key)
        except Exception as error:
            if self._shared.strict or self._is_absent:
                raise
            self._say_fault(slot, error)
        self._here.start = time.perf_counter()
        with self._shared.unharmed():
            if key in slot.original:
                dict.__setitem__(slot, key, slot.original[key])
                return True
        return False

    def _contains(self, slot: ServedSlot, key: object) -> bool:
        recognized = self._recognizer.recognize(key, sys._getframe(1))
        if self._fake is not None:
            return self._pretend(slot, key, recognized)
        found = self._resolved(slot, recognized)
        lookup = key
        if isinstance(found, Miss) and found.reason is MissReason.KEY:
            lookup = self._lookup_key(slot, key)
            if lookup is not key:
                if dict.__contains__(slot, lookup):
                    self._here.pair = key, dict.__getitem__(slot, lookup)
                    return True
                recognized = replace(recognized, key=by_value(recognized.key))
                found = self._resolved(slot, recognized)
        self._record(slot, recognized, found.reason.value if isinstance(found, Miss) else _HIT)
        function = self._function(slot, lookup, recognized, found)
        if function is None:
            self._here.missed = key, recognized
            self._here.start = time.perf_counter()
            return False
        dict.__setitem__(slot, lookup, function)
        if lookup is not key:
            self._here.pair = key, function
        return True

    def _pretend(self, slot: ServedSlot, key: object, recognized: Recognized) -> bool:
        """Answer for a kernel that nobody is to launch."""
        value = by_value(key)
        if value is not key:
            recognized = replace(recognized, key=by_value(recognized.key))
        if not dict.__contains__(slot, value):
            self._record(slot, recognized, _FAKE)
            dict.__setitem__(slot, value, launch_nothing)
        if value is not key:
            self._here.pair = key, launch_nothing
        return True

    def _record(self, slot: ServedSlot, recognized: Recognized, answer: str) -> None:
        """Write down what was looked up, if that is asked for, and by which call."""
        if self._shared.recording is not None:
            cache, frame = self.cache, sys._getframe(1)
            self._shared.recording.look(cache.provider, lambda: cache.device, slot.name, recognized, frame, answer)

    def _resolved(self, slot: ServedSlot, recognized: Recognized) -> Kernel | Miss:
        if recognized.problem is not None:
            return Miss(MissReason.FUNCTION, f"{recognized.problem} ({recognized.problem.hint})")
        return self.cache.resolve(slot.name, recognized.key, facts=recognized.facts)

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
        self._shared.counts.compiled(seconds)
        with self._shared.unharmed():
            slot.original[lookup] = function
        if self._keeper is not None:
            # As it was before the compile, which can have changed what a function reads.
            missed, recognized = self._here.missed
            if missed is not key:
                recognized = self._recognizer.recognize(lookup, sys._getframe(1))
            stored = self._keeper.keep(slot.name, recognized, function, seconds)
            if stored is not None:
                self._shared.counts.stored(stored)

    # How it is done

    def _function(self, slot: ServedSlot, key: object, recognized: Recognized, found: Kernel | Miss) -> Any:
        """Return the function that was found, else the provider's own; None if it is to be compiled."""
        if isinstance(found, Kernel):
            # Of the threads that look a key up at once, one counts it.
            token = object()
            if self._counted.setdefault((slot.name, key), token) is token:
                self._shared.counts.resolved(found)
                self._shared.suspicion.look_at(found)
                load_if_captured(found)
            return found.function
        self._missed(slot, recognized, found)
        with self._shared.unharmed():
            if key in slot.original:  # its memory from before us, or its own disk cache
                return slot.original[key]
        if self._keeper is not None:
            kept = self._keeper.wait(slot.name, recognized)
            if kept is not None:
                self._shared.counts.resolved(kept)
                return kept.function
        return None

    def _missed(self, slot: ServedSlot, recognized: Recognized, miss: Miss) -> None:
        if self._shared.behavior.on_miss in (OnMiss.COMPILE, OnMiss.STORE) and not self._is_absent:
            self._shared.counts.missed(miss.reason.value)
            return
        provider = self.cache.provider
        is_strict = self._shared.strict or self._is_absent
        if self.is_found and not is_strict and not self.cache.has_toolchain:
            self._shared.counts.missed(miss.reason.value)
            what = f"no root has kernels of `{provider.package}`: {miss.detail}"
            self._say_once("no toolchain", f"{what}; {provider.title} compiles them, unless it has them already")
            return
        named = provider.named_key(slot.name, recognized.key)
        try:
            text: KeyText | None = encode_key(recognized.key, list(named), provider.passing)
        except UnstableKey as unstable:  # said with the position's name
            text, miss = None, Miss(miss.reason, str(unstable))
        fields = {name: display(value) for name, value in named.items()}
        error = self._why(slot, text, fields, recognized.modifiers, miss)
        self._shared.counts.missed(error.reason)
        if is_strict:
            raise error
        said = miss.detail if text is None else text
        instead = f"{provider.title} compiles it instead, unless it has it already"
        self._say_once((slot.name, said), f"{error}\n  {instead}")

    def _why(
        self,
        slot: ServedSlot,
        key: KeyText | None,
        key_fields: Mapping[str, object],
        modifiers: Mapping[str, Description],
        miss: Miss,
    ) -> KernelMissing:
        """Return the error that says why there is no kernel, as far as it can be explained."""
        provider, environment = self.cache.provider, self._shared.behavior.environment
        axes, lines = None, ""
        explanation = Explanation(miss.reason, [miss.detail])
        without = [_NO_COMPILER] if self._is_absent else []
        try:
            if any(one.reason is MissReason.ABSENT for one in (miss, *miss.others)):
                frame = sys._getframe(1)
                axes = provider.observe(frame)
                lines = provider.spec_lines(frame, environment)
            explanation = explain(self.cache, miss, slot.name, key, key_fields, environment, axes, modifiers)
        except Exception:  # the explanation is not worth the job
            _LOG.debug("a miss could not be explained", exc_info=True)
        return KernelMissing(
            slot.name,
            key_fields,
            explanation.reason.value,
            [*explanation.details, *without],
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

    def _say_once(self, what: object, message: str) -> None:
        self._shared.say_once((self.cache.provider.package, what), message)


class _Here(threading.local):
    """What a thread has just been told: the last key that was looked up by value, the last miss, and when it was."""

    pair: tuple[object, Any] = (None, None)
    missed: tuple[object, Recognized] = (None, Recognized(None))
    start: float = 0.0

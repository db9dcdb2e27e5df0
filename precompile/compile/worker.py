"""What runs in the fork server and in its children: asking the provider, and compiling one kernel.

The fork server calls `load_provider` once; a child finds it loaded. Nothing here touches the cache.
"""

from __future__ import annotations

import functools
import importlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...cache.key import encode_key, kernel_id
from ...cache.target import Target
from ...errors import MachineError, ProductError
from ...products.cubin import read_cubin
from ...products.product import Product, exported, make_product
from ...providers.call import Call, Identity, Reached
from ...providers.disk import DiskCache, DiskEntry, NoEntry
from ...providers.dsl.compiler import compiler_replaced
from ...providers.dsl.rewriting import Rewritten
from ...providers.loaded import is_of, loaded_modules_of, loaded_slots
from ...providers.packages import is_in
from ...providers.protocol import LiveProvider, Provider
from ...providers.slots import StandInSlot, slots_replaced
from .answers import Answer, Closed
from .own_disk import Looked, entries_of, lookups_of
from .planner import ask_all, close_all
from .untouched import Untouched, make_calls

# A child that imports more than this, or has a function rewritten, does for those after it what takes it seconds, and
# its time says little of its kernel.
_FEW_MODULES = 10

_OTHER_RELEASE = "take a release that fa4-precompile knows, and report this one"


@dataclass(frozen=True)
class Pinned:
    """What a fork server is started for."""

    provider: Provider
    target: Target


@dataclass(frozen=True)
class Beside:
    """Another target of the same arch and CUDA, with hosts of another kind, and the id of its toolchain."""

    toolchain: str
    target: Target


@functools.cache
def _live(pinned: Pinned) -> LiveProvider:
    return pinned.provider.go_live(pinned.target)


def load_provider(pinned: Pinned, dsl_cuda: int) -> Habits:
    """Import the provider, pinned to a target. Raises `MachineError` if the DSL is not the one that was expected."""
    live = _live(pinned)
    if live.dsl.cuda != dsl_cuda:
        raise MachineError(
            f"the DSL loaded its CUDA {live.dsl.cuda} libraries where CUDA {dsl_cuda} ones were expected",
            "keep one of nvidia-cutlass-dsl-libs-cu12 and nvidia-cutlass-dsl-libs-cu13",
        )
    _require_all_slots(pinned.provider)
    ask(pinned, [Call(live.first_call())])  # what it imports, no child should import again
    importlib.import_module("elftools.elf.elffile")  # nor what `read_cubin` does
    _require_nothing_asked(live)
    live.dsl.lean.find_wrappers()
    return Habits(live)


def _require_nothing_asked(live: LiveProvider) -> None:
    asked = sorted(live.dsl.facts.asked)
    if asked:  # an answer that a cache of the provider's keeps would not be recorded by the children
        raise MachineError(f"the provider asks for {asked} of the device before it compiles")


class Habits:
    """What children do that the fork server then does for those after them: imports, and the DSL's rewriting.

    A `Learner`. Nothing else of a compile is kept: each child starts as the first one did.
    """

    def __init__(self, live: LiveProvider) -> None:
        self._live = live
        self._modules = set(sys.modules)

    def lesson(self) -> tuple[list[str], list[Rewritten]]:
        """Return the modules that were imported since the fork, and the functions that the DSL rewrote.

        A user's own modules (the callers of a spec) are left to the children: they may do anything when imported.
        """
        packages = {_top(name) for name in self._modules}
        modules = [name for name in sys.modules if name not in self._modules and _top(name) in packages]
        return modules, self._live.dsl.rewriting.done()

    def learn(self, lesson: tuple[list[str], list[Rewritten]]) -> None:
        """Import what a child has imported, and let the DSL rewrite what it rewrote there."""
        modules, functions = lesson
        for name in modules:
            with suppress(Exception):  # made by a child, or for it only
                importlib.import_module(name)
        self._modules.update(sys.modules, modules)
        self._live.dsl.rewriting.repeat(functions)
        _require_nothing_asked(self._live)


def _require_all_slots(provider: Provider) -> None:
    """Raise `MachineError` if a provider keeps kernels where they would be compiled in each job after all."""
    title = f"{provider.title} (`{provider.package}`)"
    unfound = [place for module in loaded_modules_of(provider) for place in provider.unfound(module)]
    if unfound:
        raise MachineError(
            f"{title} keeps what it compiles where it can't be found: {', '.join(unfound)}", _OTHER_RELEASE
        )
    names = [slot.name for slot in loaded_slots(provider)]
    if not names:
        raise MachineError(f"{title} has no compile cache", _OTHER_RELEASE)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise MachineError(f"{title} has two compile caches called {', '.join(twice)}", _OTHER_RELEASE)


def _top(module: str) -> str:
    return module.partition(".")[0]


def compiled_sm(pinned: Pinned) -> int:
    """Compile an empty kernel and return the SM number in its cubin's header.

    The DSL can be silently wrong about it: its CUDA 12 libraries make an sm_101 cubin of sm_110a.
    """
    with exported(_live(pinned).dsl.compile_empty(), "probe") as object_file:
        return read_cubin(object_file.read_bytes()).sm


def ask(pinned: Pinned, calls: Sequence[Call]) -> list[Answer]:
    """Ask the provider which keys it looks up for each call. Compiles nothing."""
    return ask_all(pinned.provider, _live(pinned), calls)


def close(pinned: Pinned, calls: Sequence[Call]) -> list[Closed]:
    """Ask the provider which keys it looks up for each call at any of the sizes that it leaves open."""
    return close_all(pinned.provider, _live(pinned), calls)


def disk_entries(
    pinned: Pinned, disk: DiskCache, folder: Path, calls: Sequence[Call]
) -> dict[Identity, set[DiskEntry | NoEntry]]:
    """Ask where the provider's own cache, which is in that folder, looks for the keys of calls. Compiles nothing."""
    return entries_of(pinned.provider, _live(pinned), calls, lambda cache, key: disk.entry(cache, key, folder))


def disk_lookups(pinned: Pinned, calls: Sequence[Call]) -> list[Looked]:
    """Ask whether the provider's own cache has the keys of calls. Compiles nothing."""
    return lookups_of(pinned.provider, _live(pinned), calls)


def load_untouched(pinned: Pinned) -> None:
    """Import the provider, pinned to a target, and change nothing else: for `call_untouched`."""
    _live(pinned).recognizer.close()


def call_untouched(pinned: Pinned, calls: Sequence[Call]) -> Untouched:
    """Let the provider compile what calls need, by itself and into its own caches."""
    return make_calls(pinned.provider, _live(pinned), calls)


def compile_kernel(
    pinned: Pinned, toolchain: str, call: Call, reached: Reached, beside: Sequence[Beside] = ()
) -> Product:
    """Compile a kernel that a call looks up, link it, and check what came out.

    For the targets `beside` it is linked, too, as far as the device's answers are the same there.

    Raises `ProductError` if the product is not what was asked for; what the provider or the DSL raise passes through.
    """
    live = _live(pinned)
    modules = len(sys.modules)
    by_name = pinned.provider.launches_by_name(reached.slot)
    # How a function takes its arguments by name is found out where it is made ready to be called.
    added = {} if by_name else live.dsl.to_export
    try:
        with live.dsl.lean.tracing():
            compiled = _compiled(pinned, call, reached, added)
    except ProductError:
        raise
    except Exception:
        if not (live.dsl.lean.is_known or added):
            raise
        # Once more as the DSL has it, for its own words: and the DSL 4.5 knows the option, but not for all functions.
        # What was asked of the device counts: it may have been remembered.
        compiled = _compiled(pinned, call, reached, {})
    require_source(pinned.provider, compiled.kernel)
    facts = {**reached.facts, **live.dsl.facts.asked}
    selection = pinned.provider.selection(compiled.kernel, reached.key_fields)

    def product_for(toolchain: str, target: Target) -> Product:
        kernel = kernel_id(toolchain, target.arch, reached.slot, reached.key, facts)
        return make_product(compiled.function, kernel, target, facts, selection, compiled.seconds, by_name)

    product = product_for(toolchain, pinned.target)
    alike = [other for other in beside if live.dsl.facts.hold_for(other.target)]
    # What is made for others counts to nobody: the time is that of a link.
    others = [replace(product_for(one.toolchain, one.target), cpu_seconds=None) for one in alike]
    product = replace(product, twins=tuple(others))
    had_to_learn = live.dsl.rewriting.done() or len(sys.modules) - modules > _FEW_MODULES
    return replace(product, cpu_seconds=None) if had_to_learn else product


def _compiled(pinned: Pinned, call: Call, reached: Reached, added: Mapping[str, bool]) -> _Compiled:
    live = _live(pinned)
    compiled: list[_Compiled] = []
    with _compiling_one(pinned.provider, live, reached, compiled, added):
        try:
            live.call(call)
        except _Done:
            pass
    if not compiled:
        raise ProductError(f"the call `{call.variant}` does not reach the key that it was planned for")
    return compiled[0]


def require_source(provider: Provider, kernel: object) -> None:
    """Raise `ProductError` for a kernel whose code is around a provider's package, and in no digest of a toolchain.

    Else it would be taken for up to date when that code has changed.
    """
    module = str(getattr(kernel, "__module__", ""))
    top = provider.package.split(".", maxsplit=1)[0]
    if is_in(module, top) and not is_of(module, provider) and not any(is_in(module, name) for name in provider.traced):
        raise ProductError(f"the kernel is of `{module}`, whose source is not a part of `{provider.package}`")


@dataclass(frozen=True)
class _Compiled:
    function: Any
    kernel: object
    seconds: float


class _Done(BaseException):
    """Leaves the provider's call once the one kernel is compiled. No `Exception`, so that nobody swallows it."""


@contextmanager
def _compiling_one(
    provider: Provider, live: LiveProvider, wanted: Reached, compiled: list[_Compiled], added: Mapping[str, bool]
) -> Iterator[None]:
    def compile_timed(real: Any, kernel: object, *arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        function = real(kernel, *arguments, **{**options, **added})
        compiled.append(_Compiled(function, kernel, time.perf_counter() - start))
        return function

    def leave(key: object, kernel: object) -> None:
        raise _Done

    def is_another(key: object) -> bool:
        if encode_key(key, passing=provider.passing) != wanted.key:
            return True
        return live.recognizer.recognize(key, sys._getframe(1)).facts != wanted.facts

    def slot(name: str) -> StandInSlot:
        return StandInSlot(is_another if name == wanted.slot else lambda key: True, leave)

    with slots_replaced(loaded_slots(provider), slot), compiler_replaced(live.dsl.cute, compile_timed):
        yield

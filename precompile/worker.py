"""What runs in the fork server and in its children: asking the provider, and compiling one kernel.

The fork server calls `load_provider` once; a child finds it loaded. Nothing here touches the cache.
"""

from __future__ import annotations

import functools
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cache.key import KeyText, display, encode_key, kernel_id
from ..cache.record import Selection
from ..errors import Fa4PrecompileError, MachineError, UnstableKey, UsageError
from .cubin import ProductError, read_cubin
from .flash_attn_4 import FlashAttn4
from .intercept import StandInSlot, compiler_replaced, slots_replaced
from .product import Product, exported, make_product
from .provider import Call, Pinned, Provider
from .variant import Variant


@dataclass(frozen=True)
class Reached:
    """A key that a call looks up."""

    slot: str
    key: KeyText
    key_fields: Mapping[str, object]
    selection: Selection


@dataclass(frozen=True)
class Asked:
    """What the provider answers to one call.

    Attributes:
        reached: the keys that it looks up, as indices; of a call that it refuses, those before the refusal.
        main: the key that the call's demands are about.
        refusal: why it does not take the call, in its words.
        breakdown: what went wrong where that is not the provider's word on the call: a traceback.
        wrong: what is wrong with the spec, which could only be seen here.
    """

    reached: Sequence[int] = ()
    main: int | None = None
    refusal: str = ""
    breakdown: str = ""
    wrong: UsageError | None = None


@dataclass(frozen=True)
class Answers:
    """What the provider answers to a list of calls. `Asked` points into `kernels`."""

    kernels: Sequence[Reached]
    calls: Sequence[Asked]


@functools.cache
def _provider(pinned: Pinned) -> Provider:
    return FlashAttn4(pinned.target, pinned.package)


def load_provider(pinned: Pinned, dsl_cuda: int) -> None:
    """Import the provider, pinned to a target. Raises `MachineError` if the DSL is not the one that was expected."""
    provider = _provider(pinned)
    if provider.dsl_cuda != dsl_cuda:
        raise MachineError(
            f"the DSL loaded its CUDA {provider.dsl_cuda} libraries where CUDA {dsl_cuda} ones were expected",
            "keep one of nvidia-cutlass-dsl-libs-cu12 and nvidia-cutlass-dsl-libs-cu13",
        )
    # The first call imports more of torch (1.5 s), which no child should do again.
    ask(pinned, [Call(Variant("bwd", "bf16", 64, 64))])
    if provider.facts.asked:  # an answer that a cache of the provider's keeps would not be recorded by the children
        raise MachineError(f"the provider asks for {sorted(provider.facts.asked)} of the device before it compiles")


def compiled_sm(pinned: Pinned) -> int:
    """Compile an empty kernel and return the SM number in its cubin's header.

    The DSL can be silently wrong about it: its CUDA 12 libraries make an sm_101 cubin of sm_110a.
    """
    cute = _provider(pinned).cute

    @cute.kernel  # type: ignore[untyped-decorator]
    def empty() -> None:
        pass

    @cute.jit  # type: ignore[untyped-decorator]
    def launch() -> None:
        empty().launch(grid=[1, 1, 1], block=[1, 1, 1])

    compiled = cute.compile(launch, options="--enable-tvm-ffi")
    with exported(compiled, "probe") as object_file:
        return read_cubin(object_file.read_bytes()).sm


def ask(pinned: Pinned, calls: Sequence[Call]) -> Answers:
    """Ask the provider which keys it looks up for each call. Compiles nothing."""
    provider = _provider(pinned)
    kernels: list[Reached] = []
    answers = []
    with _planning(provider) as planner:
        for call in calls:
            refusal = breakdown = ""
            try:
                planner.call(call)
            except _Refused as error:
                refusal = str(error)
            except UsageError as error:
                answers.append(Asked(wrong=error))
                continue
            except Exception:
                breakdown = traceback.format_exc()
            try:
                reached = planner.describe(kernels)
            except UnstableKey as error:
                answers.append(Asked(refusal=refusal or str(error), breakdown=breakdown))
                continue
            main = provider.main_slot(call.variant)
            mains = [index for index in reached if kernels[index].slot == main]
            answers.append(Asked(reached, mains[-1] if mains else None, refusal, breakdown))
    return Answers(kernels, answers)


def compile_kernel(pinned: Pinned, toolchain: str, call: Call, reached: Reached) -> Product:
    """Compile a kernel that a call looks up, link it, and check what came out.

    Raises `ProductError` if the product is not what was asked for; what the provider or the DSL raise passes through.
    """
    provider = _provider(pinned)
    compiled: list[tuple[Any, object, float]] = []
    with _compiling_one(provider, reached, compiled):
        try:
            provider.call(call)
        except _Compiled:
            pass
    if not compiled:
        raise ProductError(f"the call `{call.variant}` does not reach the key that it was planned for")
    function, kernel, seconds = compiled[0]
    facts = dict(provider.facts.asked)
    return make_product(
        function,
        kernel_id(toolchain, pinned.target.arch, reached.slot, reached.key, facts),
        pinned.target,
        facts,
        provider.selection(kernel, reached.key_fields),
        seconds,
    )


class _Refused(Exception):
    """The provider does not take a call, in its own words."""


_Lookup = tuple[str, object]


class _Planner:
    """Slots that make the provider go on to its kernel object, and a compiler that only looks at it.

    What follows a lookup is remembered by all lookups of the call so far: the same key can be refused for one call and
    taken for another (the head_dim 256 backward refuses a gradient of the log-sum-exp, which only the key of its
    preprocessing tells), and what is refused must not depend on the order of the calls.
    """

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._lookups: list[_Lookup] = []
        self._outcomes: dict[tuple[_Lookup, ...], str] = {}
        self._kernels: dict[_Lookup, object] = {}
        self._indices: dict[_Lookup, int] = {}

    def call(self, call: Call) -> None:
        """Make a call and keep what it looks up. Raises `_Refused`, or what is not the provider's word on it."""
        self._lookups = []
        try:
            self._provider.call(call)
        except _Refused:
            raise
        except Exception as error:
            if not self._provider.is_refusal(error):
                raise
            reason = _reason(error)
            self._outcomes.setdefault(tuple(self._lookups), reason)
            raise _Refused(reason) from error

    def contains(self, slot: str, key: object) -> bool:
        self._lookups.append((slot, key))
        outcome = self._outcomes.get(tuple(self._lookups))
        if outcome:
            raise _Refused(outcome)
        return outcome is not None

    def keep(self, slot: str, key: object, kernel: object) -> None:
        self._outcomes[tuple(self._lookups)] = ""
        self._kernels[slot, key] = kernel

    def describe(self, kernels: list[Reached]) -> list[int]:
        """Return the indices in `kernels` of what the last call looked up; new ones are added. Raises `UnstableKey`."""
        lookups = dict.fromkeys(lookup for lookup in self._lookups if lookup in self._kernels)
        return [self._index(lookup, kernels) for lookup in lookups]

    def _index(self, lookup: _Lookup, kernels: list[Reached]) -> int:
        if lookup not in self._indices:
            slot, key = lookup
            named = self._provider.named_key(slot, key)
            fields = {name: display(value) for name, value in named.items()}
            selection = self._provider.selection(self._kernels[lookup], fields)
            reached = Reached(slot, encode_key(key, list(named)), fields, selection)
            self._indices[lookup] = len(kernels)
            kernels.append(reached)
        return self._indices[lookup]


@contextmanager
def _planning(provider: Provider) -> Iterator[_Planner]:
    planner = _Planner(provider)

    def slot(name: str) -> StandInSlot:
        return StandInSlot(functools.partial(planner.contains, name), functools.partial(planner.keep, name))

    with (
        slots_replaced(provider.slots(), slot),
        compiler_replaced(provider.cute, lambda real, kernel, *_, **__: kernel),
        provider.looking_only(),
    ):
        yield planner


class _Compiled(BaseException):
    """Leaves the provider's call once the one kernel is compiled. No `Exception`, so that nobody swallows it."""


@contextmanager
def _compiling_one(provider: Provider, wanted: Reached, compiled: list[tuple[Any, object, float]]) -> Iterator[None]:
    def compile_timed(real: Any, kernel: object, *arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        function = real(kernel, *arguments, **options)
        compiled.append((function, kernel, time.perf_counter() - start))
        return function

    def leave(key: object, kernel: object) -> None:
        raise _Compiled

    def slot(name: str) -> StandInSlot:
        if name != wanted.slot:
            return StandInSlot(lambda key: True, leave)
        return StandInSlot(lambda key: encode_key(key) != wanted.key, leave)

    with slots_replaced(provider.slots(), slot), compiler_replaced(provider.cute, compile_timed):
        yield


def _reason(error: Exception) -> str:
    """Return the provider's words, or where it failed if it has none."""
    message = " ".join(str(error).split())
    if isinstance(error, (AssertionError, ValueError, NotImplementedError)) and message:
        return message
    if isinstance(error, Fa4PrecompileError):
        return message
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(frame.filename).name}:{frame.lineno}: {frame.line}"
    return f"{type(error).__name__}: {message or 'no message'} ({where})"

"""What runs in the fork server and in its children: asking the provider, and compiling one kernel.

The fork server calls `load_provider` once; a child finds it loaded. Nothing here touches the cache.
"""

from __future__ import annotations

import functools
import hashlib
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cache import load
from ..cache.key import KeyText, display, encode_key, kernel_id
from ..cache.record import Function, Selection
from ..cache.target import Target
from ..errors import Fa4PrecompileError, MachineError, UnstableKey
from .cubin import ProductError, exported_symbols, read_cubin
from .flash_attn_4 import FlashAttn4
from .link import link
from .provider import Call, Slot

_LOAD_TIME_LIMIT_S = 60


@dataclass(frozen=True)
class Reached:
    """A key that a call looks up."""

    slot: str
    key: KeyText
    key_fields: Sequence[tuple[str, object]]
    selection: Selection


@dataclass(frozen=True)
class Asked:
    """What the provider answers to one call: the keys that it looks up (indices), or its refusal."""

    reached: Sequence[int] = ()
    main: int | None = None
    refusal: str = ""


@dataclass(frozen=True)
class Answers:
    """What the provider answers to a list of calls. `Asked` points into `kernels`."""

    kernels: Sequence[Reached]
    calls: Sequence[Asked]


@dataclass(frozen=True)
class Product:
    """A compiled kernel: its blob, and all that was found out about it."""

    blob: bytes
    symbol: str
    facts: Mapping[str, int]
    selection: Selection
    cubin: str
    cubin_bytes: int
    functions: Sequence[Function]
    compile_seconds: float
    peak_bytes: int


@functools.cache
def _provider(target: Target) -> FlashAttn4:
    return FlashAttn4(target)


def load_provider(target: Target, dsl_cuda: int) -> None:
    """Import the provider, pinned to a target. Raises `MachineError` if the DSL is not the one that was expected."""
    provider = _provider(target)
    if provider.dsl_cuda != dsl_cuda:
        raise MachineError(
            f"the DSL loaded its CUDA {provider.dsl_cuda} libraries where CUDA {dsl_cuda} ones were expected",
            "unset CUTE_DSL_LIBS, and keep one of nvidia-cutlass-dsl-libs-cu12 and -cu13",
        )


def compiled_sm(target: Target) -> int:
    """Compile an empty kernel and return the SM number in its cubin's header.

    The DSL can be silently wrong about it: its CUDA 12 libraries make an sm_101 cubin of sm_110a.
    """
    cute = _provider(target).cute

    @cute.kernel  # type: ignore[untyped-decorator]
    def empty() -> None:
        pass

    @cute.jit  # type: ignore[untyped-decorator]
    def launch() -> None:
        empty().launch(grid=[1, 1, 1], block=[1, 1, 1])

    compiled = cute.compile(launch, options="--enable-tvm-ffi")
    with _exported(compiled, "probe") as object_file:
        return read_cubin(object_file.read_bytes()).sm


def ask(target: Target, calls: Sequence[Call]) -> Answers:
    """Ask the provider which keys it looks up for each call. Compiles nothing."""
    provider = _provider(target)
    kernels: list[Reached] = []
    with _planning(provider) as planner:
        answers = []
        for call in calls:
            refusal = ""
            try:
                provider.call(call)
            except Exception as error:  # whatever the provider raises is its answer, as it would be the job's
                refusal = _reason(error)
            lookups, planner.lookups = planner.lookups, []
            if refusal:
                answers.append(Asked(refusal=refusal))
                continue
            try:
                reached = [planner.describe(lookup, kernels) for lookup in dict.fromkeys(lookups)]
            except UnstableKey as error:
                answers.append(Asked(refusal=str(error)))
                continue
            main = provider.main_slot(call.variant)
            mains = [index for index in reached if kernels[index].slot == main]
            answers.append(Asked(reached, mains[-1] if mains else None))
    return Answers(kernels, answers)


def compile_kernel(target: Target, toolchain: str, call: Call, reached: Reached) -> Product:
    """Compile a kernel that a call looks up, link it, and check what came out.

    Raises `ProductError` if the product is not what was asked for; what the provider or the DSL raise passes through.
    """
    provider = _provider(target)
    compiled: list[tuple[Any, object, float]] = []
    with _compiling_one(provider, reached.slot, reached.key, compiled):
        try:
            provider.call(call)
        except _Compiled:
            pass
    if not compiled:
        raise ProductError(f"the call `{call.variant}` does not reach the key that it was planned for")
    function, kernel, seconds = compiled[0]
    facts = dict(provider.facts.asked)
    symbol = "fa4_" + kernel_id(toolchain, target.arch, reached.slot, reached.key, facts)[:40]
    with _exported(function, symbol) as object_file:
        blob = link(object_file)
    cubin = read_cubin(blob)
    _check_product(blob, symbol, cubin.sm, target)
    return Product(
        blob=blob,
        symbol=symbol,
        facts=facts,
        selection=provider.selection(kernel, dict(reached.key_fields)),
        cubin=hashlib.sha256(cubin.image).hexdigest(),
        cubin_bytes=len(cubin.image),
        functions=cubin.functions,
        compile_seconds=round(seconds, 3),
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def _check_product(blob: bytes, symbol: str, sm: int, target: Target) -> None:
    if sm != target.sm:
        raise ProductError(f"the cubin is for SM {sm}, not for SM {target.sm} ({target.arch})")
    exported = exported_symbols(blob)
    if exported != {load.SYMBOL_PREFIX + symbol}:
        raise ProductError(f"the shared object exports {sorted(exported)} instead of its own symbol only")
    try:
        subprocess.run(
            [sys.executable, "-c", _LOAD, symbol], input=blob, check=True, capture_output=True, timeout=_LOAD_TIME_LIMIT_S
        )
    except subprocess.CalledProcessError as error:
        raise ProductError(f"a fresh process can't load it: {error.stderr.decode(errors='replace')[-500:]}") from None
    except subprocess.TimeoutExpired:
        raise ProductError(f"a fresh process did not load it within {_LOAD_TIME_LIMIT_S} s") from None


# Like the fork server, it imports nothing from the working folder.
_LOAD = f"import sys; sys.path = [p for p in sys.path if p]; from {load.__name__} import check; check()"


class _Planner:
    """Slots that answer "present" to every key that was described once, and a compiler that only looks."""

    def __init__(self, provider: FlashAttn4) -> None:
        self.lookups: list[tuple[str, object]] = []
        self._provider = provider
        self._kernels: dict[tuple[str, object], object] = {}
        self._indices: dict[tuple[str, object], int] = {}

    def slot(self, name: str) -> _PlanningSlot:
        return _PlanningSlot(name, self.lookups_append, self._kernels)

    def lookups_append(self, lookup: tuple[str, object]) -> None:
        self.lookups.append(lookup)

    def describe(self, lookup: tuple[str, object], kernels: list[Reached]) -> int:
        if lookup not in self._indices:
            slot, key = lookup
            names = self._provider.key_names(slot, len(key) if isinstance(key, tuple) else 1)
            values = key if isinstance(key, tuple) else (key,)
            selection = self._provider.selection(self._kernels[lookup], dict(zip(names, values, strict=True)))
            fields = [(name, display(value)) for name, value in zip(names, values, strict=True)]
            reached = Reached(slot, encode_key(key, names), fields, selection)
            self._indices[lookup] = len(kernels)
            kernels.append(reached)
        return self._indices[lookup]


class _PlanningSlot(MutableMapping[object, object]):
    def __init__(self, name: str, seen: Any, kernels: dict[tuple[str, object], object]) -> None:
        self._name = name
        self._seen = seen
        self._kernels = kernels

    def __contains__(self, key: object) -> bool:
        # Absent the first time: so the provider goes on to make the kernel object, and refuses what it refuses there.
        self._seen((self._name, key))
        return (self._name, key) in self._kernels

    def __setitem__(self, key: object, kernel: object) -> None:
        self._kernels[self._name, key] = kernel

    def __getitem__(self, key: object) -> object:
        raise ProductError("the provider launches a kernel while it is asked for its plan")

    __delitem__ = __getitem__  # type: ignore[assignment]

    def __iter__(self) -> Iterator[object]:
        return iter(())

    def __len__(self) -> int:
        return 0


@contextmanager
def _planning(provider: FlashAttn4) -> Iterator[_Planner]:
    planner = _Planner(provider)
    with _slots_replaced(provider.slots(), {name: planner.slot(name) for name in provider.slots()}):
        with _compiler_replaced(provider.cute, lambda real, kernel, *_, **__: kernel):
            yield planner


class _Compiled(BaseException):
    """Leaves the provider's call once the one kernel is compiled. No `Exception`, so that nobody swallows it."""


class _CompilingSlot(_PlanningSlot):
    """Answers "absent" to the one key that is to be compiled, "present" to all others."""

    def __init__(self, name: str, wanted: KeyText | None) -> None:
        super().__init__(name, None, {})
        self._wanted = wanted

    def __contains__(self, key: object) -> bool:
        return self._wanted is None or encode_key(key) != self._wanted

    def __setitem__(self, key: object, kernel: object) -> None:
        raise _Compiled


@contextmanager
def _compiling_one(
    provider: FlashAttn4, slot: str, key: KeyText, compiled: list[tuple[Any, object, float]]
) -> Iterator[None]:
    def compile_timed(real: Any, kernel: object, *arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        function = real(kernel, *arguments, **options)
        compiled.append((function, kernel, time.perf_counter() - start))
        return function

    slots = {name: _CompilingSlot(name, key if name == slot else None) for name in provider.slots()}
    with _slots_replaced(provider.slots(), slots), _compiler_replaced(provider.cute, compile_timed):
        yield


@contextmanager
def _slots_replaced(slots: Mapping[str, Slot], replacements: Mapping[str, MutableMapping[Any, Any]]) -> Iterator[None]:
    originals = {name: slot.compile_cache for name, slot in slots.items()}
    for name, slot in slots.items():
        slot.compile_cache = replacements[name]
    try:
        yield
    finally:
        for name, slot in slots.items():
            slot.compile_cache = originals[name]


class _Compiler:
    """Stands in for `cute.compile`, which is called, and may be indexed with options first."""

    def __init__(self, real: Any, function: Any) -> None:
        self._real = real
        self._function = function

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._function(self._real, *arguments, **options)

    def __getitem__(self, options: Any) -> _Compiler:
        return _Compiler(self._real[options], self._function)


@contextmanager
def _compiler_replaced(cute: Any, function: Any) -> Iterator[None]:
    real = cute.compile
    cute.compile = _Compiler(real, function)
    try:
        yield
    finally:
        cute.compile = real


@contextmanager
def _exported(compiled: Any, symbol: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fa4-compile-") as folder:
        path = Path(folder, "kernel.o")
        # Only the one symbol is visible, so that no kernel can answer for another (quack#162).
        compiled.export_to_c(object_file_path=str(path), function_name=symbol, export_only_tvm_ffi_symbols=True)
        yield path


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


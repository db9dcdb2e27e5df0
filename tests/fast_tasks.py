"""What the tests of fast builds run in children of the real fork server."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from fa4_precompile.cache.key import digest_json
from fa4_precompile.precompile.compile import worker
from fa4_precompile.precompile.compile.worker import Pinned
from fa4_precompile.providers.call import Call
from fa4_precompile.providers.dsl.lean import OtherFrontend

_TOOLCHAIN = digest_json("any")[:32]


def compile_one(pinned: Pinned, call: Call, slot: str, lean: bool) -> tuple[bytes, list[str], bool, int]:
    """Compile a kernel of a call, as a build does, or with the DSL's own wrappers.

    Return its blob, the functions that the DSL rewrote for it, whether the DSL made it once more to be called, and how
    many of the DSL's wrappers stand aside while it is traced.
    """
    live: Any = worker._live(pinned)
    (answer,) = worker.ask(pinned, [call])
    reached = next(one for one in answer.reached if one.slot == slot)  # type: ignore[union-attr]
    if not lean:
        live.dsl.lean._wrappers = []
    engines = _engines()
    product = worker.compile_kernel(pinned, _TOOLCHAIN, call, reached)
    return product.blob, [name for _, name in live.dsl.rewriting.done()], bool(engines), len(live.dsl.lean._wrappers)


def compile_with_a_fault(pinned: Pinned, call: Call, slot: str) -> tuple[bytes, int, dict[str, int]]:
    """Compile a kernel whose first try asks the device for its SMs and then fails.

    Return its blob, how often it was tried, and what it was recorded to have asked.
    """
    live: Any = worker._live(pinned)
    (answer,) = worker.ask(pinned, [call])
    reached = next(one for one in answer.reached if one.slot == slot)  # type: ignore[union-attr]
    real, tries = live.call, 0

    def faulty(made: Call) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            live.dsl.facts.sms()
            raise OtherFrontend
        real(made)

    live.call = faulty
    product = worker.compile_kernel(pinned, _TOOLCHAIN, call, reached)
    return product.blob, tries, {name: int(value) for name, value in product.facts.items()}


def _engines() -> list[object]:
    """Return the list of the engines that the DSL makes from now on, to call what it compiled."""
    made: list[object] = []
    compiler: Any = importlib.import_module("cutlass.base_dsl.compiler").Compiler
    real = compiler.jit

    def noted(*arguments: Any, **options: Any) -> Any:
        made.append(arguments)
        return real(*arguments, **options)

    assert inspect.isfunction(real)
    compiler.jit = noted
    return made

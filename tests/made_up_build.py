"""A real build whose compilers are made up: what they make are synthetic kernels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import pytest

from fa4_precompile.cache.key import encode_key, kernel_id
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.record import Selection
from fa4_precompile.cache.store import Root
from fa4_precompile.commands.progress import NoProgress
from fa4_precompile.precompile import build as build_module
from fa4_precompile.precompile.known_bad import UNGUARDED, Guard
from fa4_precompile.precompile.lending import Borrower
from fa4_precompile.precompile.plan import Plan, PlannedKernel
from fa4_precompile.precompile.report import BuildReport
from fa4_precompile.precompile.shard import Shard
from fa4_precompile.precompile.spec.spec import Spec, parse_spec, target_book
from fa4_precompile.precompile.twins import Twins
from fa4_precompile.products.product import Product
from fa4_precompile.providers.call import Call, Environment, Reached
from support import make_target, make_toolchain, synthetic_blob

_SPEC = "version: 1\nprovider: flash-attn-4\nkernels: [{name: a, pass: fwd, dtype: bf16, head_dim: 64}]\n"
_SELECTION = Selection("SyntheticForward", "generic", 1, {})


class _Compilers(Executor):
    """Stand in for the fork servers' pools and for what starts them: one thread makes products up."""

    products_come_here = True

    def __init__(self, compile_one: Callable[[Reached], Product]) -> None:
        self.toolchain, self.target = make_toolchain(), make_target()
        self.pinned, self.jobs, self.provider = None, 1, self
        self._compile_one = compile_one
        self._thread = ThreadPoolExecutor(1)

    def expected_cost(self, *_: object) -> tuple[int, ...]:
        return (0,)

    def require_arch(self) -> None: ...

    def rounds(self, environments: Iterable[Environment]) -> list[Sequence[Environment]]:
        return [list(environments)]

    def pool(self, _environment: object = ()) -> Executor:
        return self

    def submit(self, fn: Any, /, *args: Any, **_: Any) -> Future[Any]:
        _, _, _, reached, _ = args
        return self._thread.submit(self._compile_one, reached)


def made_up_spec() -> Spec:
    return parse_spec("spec.yaml", _SPEC, target_book())


def made_up_product(reached: Reached) -> Product:
    return Product(
        kernel=kernel_id(make_toolchain().id, make_target().arch, reached.slot, reached.key, {}),
        blob=synthetic_blob(len(reached.key)),
        facts={},
        selection=_SELECTION,
        cubin=hashlib.sha256(b"").hexdigest(),
        cubin_bytes=0,
        functions=[],
        compile_seconds=0.0,
        cpu_seconds=0.0,
        peak_bytes=0,
        keywords={},
    )


class _Untried:
    """In the place of what loads blobs: those of these tests are no libraries."""

    def require_loads(self, blob: bytes, symbol: str) -> None:
        """Take anything."""


def made_up_build(
    root: Root,
    compile_one: Callable[[Reached], Product],
    kernels: int,
    patch: pytest.MonkeyPatch,
    publisher: Publisher | None = None,
    shard: Shard | None = None,
    guard: Guard = UNGUARDED,
) -> BuildReport:
    """Build kernels of one call, so of one label."""
    spec = made_up_spec()
    call = Call(spec.variants[0])
    reached = [Reached("fwd", encode_key(("x" * number,)), {"name": number}, _SELECTION) for number in range(kernels)]
    plan = Plan(spec, make_target(), [PlannedKernel(one, call) for one in reached], [], [], [])
    patch.setattr(build_module, "make_plan", lambda *_: plan)
    compilers = _Compilers(compile_one)
    publisher, trial = publisher or Publisher(root), _Untried()
    borrower = Borrower([], publisher, make_target(), trial, print)  # type: ignore[arg-type]
    builder = build_module._Build(publisher, compilers, trial, borrower, NoProgress(), shard, guard, Twins())  # type: ignore[arg-type]
    return builder.run(spec, 0.0)

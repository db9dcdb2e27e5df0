"""What a build does with what comes back: published and let go of, or told. The compilers here are made up."""

from __future__ import annotations

import hashlib
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NoReturn

import pytest

from fa4_precompile.cache.key import encode_key, kernel_id
from fa4_precompile.cache.manifest import Manifest
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.record import Selection
from fa4_precompile.cache.store import Root
from fa4_precompile.commands.progress import NoProgress
from fa4_precompile.errors import MachineError
from fa4_precompile.precompile import build as build_module
from fa4_precompile.precompile.build import build
from fa4_precompile.precompile.compile.pool import TaskFailed
from fa4_precompile.precompile.lending import Borrower
from fa4_precompile.precompile.plan import Plan, PlannedKernel
from fa4_precompile.precompile.spec.spec import Spec, parse_spec, target_book
from fa4_precompile.products.product import Product
from fa4_precompile.providers.call import Call, Reached
from support import make_target, make_toolchain, synthetic_blob

_SPEC = "version: 1\nprovider: flash-attn-4\nkernels: [{name: a, pass: fwd, dtype: bf16, head_dim: 64}]\n"
_SELECTION = Selection("SyntheticForward", "generic", 1, {})


class _Compilers(Executor):
    """Stand in for the fork servers' pools and for what starts them: one thread makes products up."""

    def __init__(self, compile_one: Callable[[Reached], Product]) -> None:
        self.toolchain, self.target = make_toolchain(), make_target()
        self.pinned, self.jobs, self.provider = None, 1, self
        self._compile_one = compile_one
        self._thread = ThreadPoolExecutor(1)

    def expected_cost(self, *_: object) -> tuple[int, ...]:
        return (0,)

    def require_arch(self) -> None: ...

    def pool(self, _environment: object = ()) -> Executor:
        return self

    def submit(self, fn: Any, /, *args: Any, **_: Any) -> Future[Any]:
        return self._thread.submit(self._compile_one, args[-1])


def _spec() -> Spec:
    return parse_spec("spec.yaml", _SPEC, target_book())


def _product(reached: Reached) -> Product:
    return Product(
        kernel=kernel_id(make_toolchain().id, make_target().arch, reached.slot, reached.key, {}),
        blob=synthetic_blob(len(reached.key)),
        facts={},
        selection=_SELECTION,
        cubin=hashlib.sha256(b"").hexdigest(),
        cubin_bytes=0,
        functions=[],
        compile_seconds=0.0,
        peak_bytes=0,
        keywords={},
    )


class _Untried:
    """In the place of what loads blobs: those of these tests are no libraries."""

    def require_loads(self, blob: bytes, symbol: str) -> None:
        """Take anything."""


def _build(root: Root, compile_one: Callable[[Reached], Product], kernels: int, patch: pytest.MonkeyPatch) -> Manifest:
    """Build kernels of one call, so of one label, and return the manifest."""
    spec = _spec()
    call = Call(spec.variants[0])
    reached = [Reached("fwd", encode_key(("x" * number,)), {"name": number}, _SELECTION) for number in range(kernels)]
    plan = Plan(spec, make_target(), [PlannedKernel(one, call) for one in reached], [], [], [])
    patch.setattr(build_module, "make_plan", lambda *_: plan)
    publisher, trial, compilers = Publisher(root), _Untried(), _Compilers(compile_one)
    borrower = Borrower([], publisher, make_target(), trial, print)  # type: ignore[arg-type]
    builder = build_module._Build(publisher, compilers, trial, borrower, NoProgress())  # type: ignore[arg-type]
    builder.run(spec, 0.0)
    (manifest,) = root.manifests()
    assert isinstance(manifest, Manifest)
    return manifest


def test_build_lets_go_of_a_product_once_it_is_published(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[Product]] = []
    alive: list[int] = []

    def compile_one(reached: Reached) -> Product:
        # The one before is given back by the executor, published and let go of, or never.
        deadline = time.monotonic() + 10
        while (count := sum(one() is not None for one in made)) > 1 and time.monotonic() < deadline:
            time.sleep(0.001)
        alive.append(count)
        if count > 1:
            raise TaskFailed("products of earlier kernels are still in memory", "")
        product = _product(reached)
        made.append(weakref.ref(product))
        return product

    manifest = _build(root, compile_one, 12, monkeypatch)
    assert max(alive) <= 1
    assert len(manifest.kernels) == 12


def test_build_two_kernels_of_one_label_that_fail_are_both_in_the_manifest(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(reached: Reached) -> NoReturn:
        raise TaskFailed(f"no {reached.key_fields['name']}", "its traceback")

    manifest = _build(root, fail, 3, monkeypatch)
    label = f"fwd of {_spec().variants[0]}"
    assert set(manifest.failed) == {label, f"{label} (2)", f"{label} (3)"}
    assert set(manifest.failed.values()) == {"no 0", "no 1", "no 2"}


def test_build_for_a_target_whose_name_no_file_can_have_ends_before_anything_is_compiled(root: Root) -> None:
    target = replace(make_target(), name="a" * 240)
    with pytest.raises(MachineError, match="File name too long") as caught:
        build(_spec(), target, make_toolchain(), root, NoProgress(), 1)
    assert "shorter name" in caught.value.hint

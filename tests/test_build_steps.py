"""What a build does with what comes back: published and let go of, or told. The compilers here are made up."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import NoReturn

import pytest
from made_up_build import made_up_build, made_up_product, made_up_spec

from fa4_precompile.cache import layout
from fa4_precompile.cache.manifest import Manifest
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.verify import verify_root
from fa4_precompile.commands.progress import NoProgress
from fa4_precompile.errors import MachineError
from fa4_precompile.precompile.build import build
from fa4_precompile.precompile.compile.pool import TaskFailed
from fa4_precompile.products.product import Product
from fa4_precompile.providers.call import Reached
from support import make_target, make_toolchain


def _build(root: Root, compile_one: Callable[[Reached], Product], kernels: int, patch: pytest.MonkeyPatch) -> Manifest:
    """Build kernels of one call, so of one label, and return the manifest."""
    made_up_build(root, compile_one, kernels, patch)
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
        product = made_up_product(reached)
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
    label = f"fwd of {made_up_spec().variants[0]}"
    assert set(manifest.failed) == {label, f"{label} (2)", f"{label} (3)"}
    assert set(manifest.failed.values()) == {"no 0", "no 1", "no 2"}


def test_build_for_a_target_whose_name_no_file_can_have_ends_before_anything_is_compiled(root: Root) -> None:
    target = replace(make_target(), name="a" * 240)
    with pytest.raises(MachineError, match="File name too long") as caught:
        build(made_up_spec(), target, make_toolchain(), root, NoProgress(), 1)
    assert "shorter name" in caught.value.hint


class _Deleted(Publisher):
    """A publisher to a cache of which somebody deletes a record just before it is confirmed, so often."""

    def __init__(self, root: Root, times: int) -> None:
        super().__init__(root)
        self._left = times

    def confirm(self, relative: str) -> bool:
        if relative.startswith("records/") and self._left:
            self._left -= 1
            (self.root.path / relative).unlink()
        return super().confirm(relative)


@pytest.mark.parametrize("times", [1, 3, 7])
def test_build_whose_kernels_are_deleted_meanwhile_compiles_them_again(
    root: Root, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    compiled: list[str] = []

    def compile_one(reached: Reached) -> Product:
        compiled.append(reached.key)
        return made_up_product(reached)

    report = made_up_build(root, compile_one, 3, monkeypatch, _Deleted(root, times))
    assert (report.built, report.cached, report.failed) == (3, 0, [])
    assert len(compiled) == 3 + times
    assert verify_root(root).findings == []


def test_build_whose_kernels_are_deleted_again_and_again_ends_and_says_so(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = made_up_build(root, made_up_product, 3, monkeypatch, _Deleted(root, 1_000_000))
    assert report.built == 0
    assert {failure.error for failure in report.failed} == {"it was deleted again and again while this build went on"}
    assert verify_root(root).findings == []


def test_build_that_finds_kernels_confirms_them_and_compiles_those_that_go_then(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up_build(root, made_up_product, 3, monkeypatch)
    report = made_up_build(root, made_up_product, 3, monkeypatch, _Deleted(root, 1))
    assert (report.built, report.cached, report.failed) == (1, 2, [])


def test_build_puts_back_the_toolchain_and_library_that_went_meanwhile(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_one(reached: Reached) -> Product:
        for path in (layout.toolchain_path(make_toolchain().id), layout.library_path(make_toolchain().id)):
            (root.path / path).unlink()
        return made_up_product(reached)

    made_up_build(root, compile_one, 1, monkeypatch)
    assert verify_root(root).findings == []
    assert root.has_library(make_toolchain().id)

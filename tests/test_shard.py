"""Shards of a build: which kernels are whose, and what the manifest says of the others. The compilers are made up."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import click
import pytest
from made_up_build import made_up_build, made_up_product, made_up_spec

from command_line import Cli, write_spec
from fa4_precompile.cache.key import encode_key, kernel_id
from fa4_precompile.cache.manifest import Manifest
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.store import Root
from fa4_precompile.commands.options import Part
from fa4_precompile.precompile.compile.pool import TaskFailed
from fa4_precompile.precompile.report import finished_report
from fa4_precompile.precompile.shard import Shard
from fa4_precompile.products.product import Product
from fa4_precompile.providers.call import Reached
from support import event, join, make_target, make_toolchain, record_file, start

_KERNELS = 12
_LABEL = f"fwd of {made_up_spec().variants[0]}"
_LABELS = [_LABEL, *(f"{_LABEL} ({number})" for number in range(2, _KERNELS + 1))]


def _number(place: int, of: int) -> int:
    """Return the shard of a kernel of `made_up_build` as the decision page has it."""
    key = encode_key(("x" * place,))
    return int(kernel_id(make_toolchain(machine="").id, "sm_100a", "fwd", key, {})[:15], 16) % of + 1


def _manifest(root: Root) -> Manifest:
    (found,) = root.manifests()
    assert isinstance(found, Manifest)
    return found


def _manifest_bytes(root: Root) -> bytes:
    return root.manifest_path(_manifest(root)).read_bytes()


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The manifest of a build that is not sharded."""
    root = Root(tmp_path / "whole")
    made_up_build(_made(root), made_up_product, _KERNELS, monkeypatch)
    return _manifest_bytes(root)


def _made(root: Root) -> Root:
    Publisher(root).create()
    return root


def test_shard_builds_its_kernels_and_names_the_shards_of_the_others(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = made_up_build(root, made_up_product, _KERNELS, monkeypatch, shard=Shard(2, 3))
    numbers = [_number(place, 3) for place in range(_KERNELS)]
    assert (report.kernels, report.built, report.cached) == (_KERNELS, numbers.count(2), 0)
    manifest = _manifest(root)
    others = {label: f"{number}/3" for label, number in zip(_LABELS, numbers, strict=True) if number != 2}
    assert manifest.left == others
    assert report.left == len(others) > 0
    assert len(manifest.kernels) == numbers.count(2) > 0
    assert not manifest.complete
    assert report.render()["left"] == len(others)


def test_shards_into_one_root_come_to_the_manifest_of_the_whole_build(
    root: Root, monkeypatch: pytest.MonkeyPatch, whole: bytes
) -> None:
    for number in (3, 1, 2):
        report = made_up_build(root, made_up_product, _KERNELS, monkeypatch, shard=Shard(number, 3))
    assert _manifest_bytes(root) == whole
    assert (report.left, report.built + report.cached) == (0, _KERNELS)
    assert b'"left"' not in whole


def test_whole_build_completes_what_a_shard_began(root: Root, monkeypatch: pytest.MonkeyPatch, whole: bytes) -> None:
    begun = made_up_build(root, made_up_product, _KERNELS, monkeypatch, shard=Shard(1, 3))
    report = made_up_build(root, made_up_product, _KERNELS, monkeypatch)
    assert (report.built, report.cached) == (_KERNELS - begun.built, begun.built)
    assert _manifest_bytes(root) == whole


def test_shard_whose_kernels_are_there_has_nothing_to_do_and_a_whole_build_has(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = made_up_build(root, made_up_product, _KERNELS, monkeypatch, shard=Shard(1, 3))

    def finished(shard: Shard | None) -> object:
        return finished_report(root, made_up_spec(), make_target(), make_toolchain(), 0.0, shard)

    again = finished(Shard(1, 3))
    assert again is not None
    assert (again.kernels, again.cached, again.left) == (_KERNELS, begun.built, begun.left)  # type: ignore[attr-defined]
    assert [finished(shard) for shard in (None, Shard(2, 3), Shard(1, 4))] == [None] * 3
    (record, *_) = (item for item in root.records())
    record_file(root.path, record).unlink()  # type: ignore[arg-type]
    assert finished(Shard(1, 3)) is None


def test_kernel_of_a_shard_that_fails_is_failed_there_and_left_elsewhere(
    root: Root, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    numbers = [_number(place, 3) for place in range(_KERNELS)]
    bad = numbers.index(2)

    def compile_one(reached: Reached) -> Product:
        if reached.key_fields["name"] == bad:
            raise TaskFailed("it is bad", "its traceback")
        return made_up_product(reached)

    other = _made(Root(tmp_path / "other"))
    report = made_up_build(root, compile_one, _KERNELS, monkeypatch, shard=Shard(2, 3))
    made_up_build(other, compile_one, _KERNELS, monkeypatch, shard=Shard(1, 3))
    assert [failure.kernel for failure in report.failed] == [_LABELS[bad]]
    assert _manifest(root).failed == {_LABELS[bad]: "it is bad"}
    assert _LABELS[bad] not in _manifest(root).left
    assert _manifest(other).left[_LABELS[bad]] == "2/3"
    assert _manifest(other).failed == {}
    assert [call.variant for call in _manifest(root).calls] == [call.variant for call in _manifest(other).calls]


class _Slow(Publisher):
    """A publisher that waits a moment before a manifest is published, for others to be quicker."""

    def __init__(self, root: Root, waits: Any, others: Any) -> None:
        super().__init__(root)
        self._waits, self._others = waits, others

    def publish_manifest(self, manifest: Manifest) -> Path:
        self._waits.set()
        self._others.wait(1)  # who looks and publishes in one go with no other between keeps them waiting
        return super().publish_manifest(manifest)


def test_shards_side_by_side_leave_a_complete_manifest_whoever_is_slow(
    root: Root, monkeypatch: pytest.MonkeyPatch, whole: bytes
) -> None:
    waits, others = event(), event()

    def first() -> None:
        made_up_build(root, made_up_product, _KERNELS, monkeypatch, _Slow(root, waits, others), Shard(1, 2))

    def second() -> None:
        def compile_one(reached: Reached) -> Product:
            assert waits.wait(60)
            return made_up_product(reached)

        made_up_build(root, compile_one, _KERNELS, monkeypatch, shard=Shard(2, 2))
        others.set()

    join(start(first), start(second))
    assert _manifest_bytes(root) == whole


def test_shard_of_a_kernel_does_not_change_with_the_rest_of_the_spec(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up_build(root, made_up_product, 5, monkeypatch, shard=Shard(1, 2))
    few = set(_manifest(root).kernels)
    shutil.rmtree(root.path)
    made_up_build(_made(Root(root.path)), made_up_product, _KERNELS, monkeypatch, shard=Shard(1, 2))
    assert few < set(_manifest(Root(root.path)).kernels)


@pytest.mark.parametrize("value", ["0/8", "9/8", "1/10001", "3", "3/", "-1/8", "1.5/2", "3/8/9", "", "\u0663/8"])
def test_shard_that_is_none_is_refused_with_what_one_is(value: str) -> None:
    with pytest.raises(click.BadParameter, match="is no K/N such as 3/8, with K from 1 to N and N up to 10,000"):
        Part().convert(value, None, None)
    assert Part().convert("10000/10000", None, None) == (10000, 10000)


def test_shard_that_is_none_is_a_wrong_command_line(cli: Cli, tmp_path: Path) -> None:
    done = cli("build", write_spec(tmp_path), "--shard", "9/8")
    assert (done.code, "'9/8' is no K/N such as 3/8" in done.err) == (2, True)

"""Preloading: all kernels of a manifest are loaded before they are needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import loader_tasks
from fa4_precompile.cache.manifest import Manifest
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.store import Root
from jobs import Jobs
from product import copy_cache, records
from support import blob_file, overwrite

pytestmark = pytest.mark.compiles


@pytest.fixture
def cache(small_cache: Path, tmp_path: Path) -> Path:
    """A copy of the small cache, to be moved and harmed."""
    return copy_cache(small_cache, tmp_path / "cache")


@pytest.mark.parametrize("spec", [None, "small"])
def test_preloaded_kernels_are_resolved_though_their_cache_is_gone(jobs: Jobs, cache: Path, spec: str | None) -> None:
    preloaded = jobs.run(loader_tasks.preload_and_look_up, cache, "error", spec)
    assert preloaded.kernels == sorted(record.id for record in records(cache.with_name("away")))
    assert (preloaded.report.stats["preloaded"], preloaded.report.stats["resolved"]) == (6, 6)
    assert (preloaded.report.stats["missed"], preloaded.report.missing) == ({}, [])


def test_preloaded_kernel_of_two_manifests_is_one(jobs: Jobs, cache: Path) -> None:
    (manifest,) = Root(cache).manifests()
    assert isinstance(manifest, Manifest)
    Publisher(Root(cache)).publish_manifest(replace(manifest, spec="another", spec_digest="0" * 64))
    preloaded = jobs.run(loader_tasks.preload, cache, "error", None, {})
    assert preloaded.kernels == sorted(record.id for record in records(cache))
    assert preloaded.report.stats["preloaded"] == 6


@pytest.mark.parametrize(
    ("spec", "environment", "words"),
    [
        ("another", {}, "there is no manifest of `another` for sm_100a with 148 SMs"),
        (None, {"FLASH_ATTENTION_NUM_SMS": "132"}, "there is no manifest for sm_100a with 132 SMs"),
        (None, {"CUTE_DSL_ARCH": "sm_103a"}, "there is no manifest for sm_103a with 148 SMs"),
    ],
)
def test_preload_for_a_device_or_spec_without_a_manifest_is_an_error_in_strict_mode_only(
    jobs: Jobs, cache: Path, spec: str | None, environment: dict[str, str], words: str
) -> None:
    strict = jobs.run(loader_tasks.preload, cache, "error", spec, environment)
    assert strict.error is not None
    assert words in str(strict.error)
    warned = jobs.run(loader_tasks.preload, cache, "warn", spec, environment)
    assert (warned.error, warned.kernels) == (None, [])
    (warning,) = warned.report.warnings
    assert words in warning


def test_preload_with_a_damaged_kernel_names_it_and_loads_the_others(jobs: Jobs, cache: Path) -> None:
    victim = records(cache)[0]
    overwrite(blob_file(cache, victim), b"damaged")
    strict = jobs.run(loader_tasks.preload, cache, "error", None, {})
    assert strict.error is not None
    assert f"kernel `{victim.id[:12]}` does not load" in str(strict.error)
    warned = jobs.run(loader_tasks.preload, cache, "warn", None, {})
    assert warned.kernels == sorted(record.id for record in records(cache) if record.id != victim.id)
    (warning,) = warned.report.warnings
    assert victim.id[:12] in warning


@pytest.mark.parametrize("is_folder", [False, True], ids=["file", "folder"])
def test_preload_names_a_manifest_that_it_can_not_read(jobs: Jobs, cache: Path, is_folder: bool) -> None:
    (manifest,) = Root(cache).manifests()
    assert isinstance(manifest, Manifest)
    another = replace(manifest, spec="another", spec_digest="0" * 64)
    path = Publisher(Root(cache)).publish_manifest(another)
    if is_folder:
        path.parent.chmod(0o777)
    else:
        overwrite(path, b"damaged")
    words = f"`{path.parent}` is not trusted" if is_folder else f"`{path}` is damaged"
    strict = jobs.run(loader_tasks.preload, cache, "error", None, {})
    assert strict.error is not None
    assert words in str(strict.error)
    warned = jobs.run(loader_tasks.preload, cache, "warn", None, {})
    assert len(warned.kernels) == (0 if is_folder else 6)
    (warning,) = warned.report.warnings
    assert words in warning


def test_preload_of_one_spec_does_not_mind_another_manifest(jobs: Jobs, cache: Path) -> None:
    (manifest,) = Root(cache).manifests()
    assert isinstance(manifest, Manifest)
    path = Publisher(Root(cache)).publish_manifest(replace(manifest, spec="another", spec_digest="0" * 64))
    overwrite(path, b"damaged")
    preloaded = jobs.run(loader_tasks.preload, cache, "error", "small", {})
    assert (preloaded.error, len(preloaded.kernels)) == (None, 6)

"""Preloading: all kernels of a manifest are loaded before they are needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import preload_tasks
import pytest

import loader_tasks
from fa4_precompile.cache.manifest import Manifest
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.store import Root
from jobs import Jobs, command, report_of, run_from_scratch
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


# What is loaded without a call of `preload`


@pytest.mark.parametrize("preload", [None, "background"])
def test_kernels_are_loaded_in_the_background_where_there_is_a_manifest_and_lookups_take_them_over(
    jobs: Jobs, cache: Path, preload: str | None
) -> None:
    begun = jobs.run(preload_tasks.install, cache, preload, "error", {}, loader_tasks.SMALL)
    assert (begun.preloaded, begun.error) == (6, "")
    assert (begun.report.stats["resolved"], begun.report.missing, begun.report.warnings) == (6, [], [])


def test_nothing_is_loaded_in_the_background_or_said_where_there_is_no_manifest_for_the_device(
    jobs: Jobs, cache: Path
) -> None:
    begun = jobs.run(preload_tasks.install, cache, None, "error", {"FLASH_ATTENTION_NUM_SMS": "132"}, [])
    assert (begun.preloaded, begun.error, begun.report.warnings) == (0, "", [])


@pytest.mark.parametrize("preload", ["0", False])
def test_nothing_is_loaded_that_is_not_wanted(jobs: Jobs, cache: Path, preload: str | bool) -> None:
    begun = jobs.run(preload_tasks.install, cache, preload, "error", {}, loader_tasks.SMALL)
    assert (begun.preloaded, begun.report.stats["resolved"]) == (0, 6)


@pytest.mark.parametrize("preload", ["1", True])
def test_all_is_loaded_when_the_provider_is_attached_if_that_is_asked_for(
    jobs: Jobs, cache: Path, preload: str | bool
) -> None:
    begun = jobs.run(preload_tasks.install, cache, preload, "error", {}, loader_tasks.SMALL)
    assert (begun.at_once, begun.preloaded, begun.report.stats["resolved"]) == (6, 6, 6)


def test_all_is_loaded_when_the_import_ends_of_a_job_that_nobody_changed(cache: Path) -> None:
    settings = {"FA4_PRECOMPILE_CACHE": str(cache), "FA4_PRECOMPILE_ON_MISS": "error", "FA4_PRECOMPILE_PRELOAD": "1"}
    report = report_of(run_from_scratch(command(loader_tasks.SMALL), **settings))
    assert (report.stats["preloaded"], report.stats["resolved"]) == (6, 6)


def test_what_can_not_be_loaded_at_once_is_an_error_in_strict_mode_only(jobs: Jobs, cache: Path) -> None:
    elsewhere = {"FLASH_ATTENTION_NUM_SMS": "132"}
    strict = jobs.run(preload_tasks.install, cache, "1", "error", elsewhere, [])
    assert "there is no manifest for sm_100a with 132 SMs" in strict.error
    warned = jobs.run(preload_tasks.install, cache, "1", "warn", elsewhere, [])
    assert (warned.preloaded, warned.error) == (0, "")
    (warning,) = warned.report.warnings
    assert "there is no manifest for sm_100a with 132 SMs" in warning
    nowhere = jobs.run(preload_tasks.install, cache, "1", "warn", {"CUTE_DSL_ARCH": ""}, [])
    assert (nowhere.preloaded, nowhere.error) == (0, "")
    (warning,) = nowhere.report.warnings
    assert "can't preload: no NVIDIA GPU is visible here" in warning


@pytest.mark.parametrize("on_miss", ["error", "warn"])
def test_damaged_kernel_is_left_to_its_lookup_which_says_it_as_ever(jobs: Jobs, cache: Path, on_miss: str) -> None:
    victim = next(record for record in records(cache) if record.slot == "bwd_post")
    overwrite(blob_file(cache, victim), b"damaged")
    begun = jobs.run(preload_tasks.install, cache, "background", on_miss, {}, [])
    assert (begun.preloaded, begun.error, begun.report.warnings) == (5, "", [])
    (missing,) = jobs.run(loader_tasks.job, loader_tasks.SMALL, [cache.with_name("away")]).missing
    assert missing.reason == "damaged"


@pytest.mark.parametrize(("spec", "preloaded"), [("small", 6), ("another", 1)])
def test_spec_that_is_named_is_what_is_loaded(jobs: Jobs, cache: Path, spec: str, preloaded: int) -> None:
    (manifest,) = Root(cache).manifests()
    assert isinstance(manifest, Manifest)
    another = replace(manifest, spec="another", spec_digest="0" * 64, kernels=manifest.kernels[:1], calls=[])
    Publisher(Root(cache)).publish_manifest(another)
    begun = jobs.run(preload_tasks.install, cache, spec, "error", {}, [])
    assert (begun.preloaded, begun.report.warnings) == (preloaded, [])


def test_spec_that_is_named_and_was_built_in_part_is_loaded_as_far_as_it_is_there(jobs: Jobs, cache: Path) -> None:
    (manifest,) = Root(cache).manifests()
    assert isinstance(manifest, Manifest)
    part = replace(manifest, kernels=manifest.kernels[:2], calls=[], left={"a": "2/3", "b": "2/3", "c": "3/3"})
    Publisher(Root(cache)).publish_manifest(part)
    begun = jobs.run(preload_tasks.install, cache, "small", "error", {}, [])
    (warning,) = begun.report.warnings
    assert (begun.preloaded, begun.error) == (2, "")
    assert "the build of `small` is not complete: 3 of its kernels are left to other shards" in warning
    Publisher(Root(cache)).publish_manifest(replace(part, spec="another", spec_digest="0" * 64))
    Publisher(Root(cache)).publish_manifest(manifest)
    assert jobs.run(preload_tasks.install, cache, "small", "error", {}, []).report.warnings == []


def test_kernels_that_an_earlier_run_used_are_what_its_report_loads(jobs: Jobs, cache: Path, tmp_path: Path) -> None:
    report, (call, *_) = tmp_path / "report.jsonl", loader_tasks.SMALL
    jobs.run(preload_tasks.use, cache, report, [call])
    begun = jobs.run(preload_tasks.install, cache, str(report), "error", {}, [call])
    assert begun.preloaded == begun.report.stats["resolved"] == 1
    preloaded = jobs.run(loader_tasks.preload, cache.with_name("away"), "error", str(report), {})
    assert len(preloaded.kernels) == 1


@pytest.mark.parametrize("on_miss", ["error", "warn"])
@pytest.mark.parametrize(
    ("preload", "words"),
    [
        ("nope", "there is no manifest of `nope` for sm_100a with 148 SMs; there is one of `small`"),
        ("/nowhere/report.jsonl", "the report `/nowhere/report.jsonl` can't be read: No such file or directory"),
    ],
)
def test_name_that_nothing_has_is_said_once_and_harms_no_job(
    jobs: Jobs, cache: Path, preload: str, words: str, on_miss: str
) -> None:
    begun = jobs.run(preload_tasks.install, cache, preload, on_miss, {}, loader_tasks.SMALL)
    assert (begun.preloaded, begun.error, begun.report.stats["resolved"]) == (0, "", 6)
    (warning,) = begun.report.warnings
    assert words in warning


@pytest.mark.chance
def test_loader_that_is_taken_out_while_it_preloads_leaves_nothing_behind(jobs: Jobs, cache: Path) -> None:
    left = jobs.run(preload_tasks.uninstall_at_once, cache)
    assert left == {"given back": True, "left": [], "missing": []}

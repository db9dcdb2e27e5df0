"""Why a job finds no kernel: each cause, in real jobs, and what a strict one and one that may compile make of it."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import preload_tasks
import pytest

import loader_tasks
from fa4_precompile.cache.codec import render_file
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.record import Record
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.toolchain import Toolchain
from fa4_precompile.commands.progress import NoProgress
from fa4_precompile.precompile.build import build
from fa4_precompile.precompile.compile.pool import TaskFailed
from fa4_precompile.precompile.spec.spec import read_spec, target_book
from fa4_precompile.providers.dsl.installation import DSL
from fa4_precompile.providers.installed import installed_toolchain
from fa4_precompile.providers.registry import DEFAULT
from fake_job import Call, Missing
from jobs import Jobs, command, report_of, run_from_scratch
from product import copy_cache, records
from support import blob_file, overwrite, record_file

pytestmark = pytest.mark.compiles

CAUSAL, PERSISTENT, TRAINING = Call(causal=True), Call(causal=False), Call(causal=True, training=True)

Harm = Callable[[Path], object]


@pytest.fixture
def cache(small_cache: Path, tmp_path: Path) -> Path:
    """A copy of the small cache, to be harmed."""
    return copy_cache(small_cache, tmp_path / "cache")


def _kernel_of(cache: Path, causal: bool = True) -> Record:
    (found,) = [
        record
        for record in records(cache)
        if record.slot == "fwd" and record.key_fields["causal"] is causal and record.key_fields["lse is None"] is True
    ]
    return found


def _missing(jobs: Jobs, call: Call, *roots: Path, **environment: str | None) -> Missing:
    report = jobs.run(loader_tasks.job, [call], roots, "error", environment)
    assert len(report.missing) == 1, report
    assert report.stats["missed"] == {report.missing[0].reason: 1}
    assert (report.stats["resolved"], report.stats["compiled"], report.warnings) == (0, 0, [])
    return report.missing[0]


def _truncate_blob(cache: Path) -> None:
    blob = blob_file(cache, _kernel_of(cache))
    overwrite(blob, blob.read_bytes()[:-1])


def _flip_a_bit_of_blob(cache: Path) -> None:
    blob = blob_file(cache, _kernel_of(cache))
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 1
    overwrite(blob, bytes(content))


def _swap_blobs(cache: Path) -> None:
    blob, other = (blob_file(cache, _kernel_of(cache, causal)) for causal in (True, False))
    overwrite(blob, other.read_bytes())


def _delete_blob(cache: Path) -> None:
    blob_file(cache, _kernel_of(cache)).unlink()


def _truncate_record(cache: Path) -> None:
    record = record_file(cache, _kernel_of(cache))
    overwrite(record, record.read_bytes()[:-20])


def _swap_records(cache: Path) -> None:
    record, other = (record_file(cache, _kernel_of(cache, causal)) for causal in (True, False))
    overwrite(record, other.read_bytes())


def _make_record_one_of_the_future(cache: Path) -> None:
    record = _kernel_of(cache)
    overwrite(record_file(cache, record), render_file({**record.render(), "schema": "fa4-precompile/record/99"}))


def _delete_record(cache: Path) -> None:
    record_file(cache, _kernel_of(cache)).unlink()


def _damage_toolchain(cache: Path) -> None:
    (toolchain,) = cache.glob("toolchains/*.json")
    overwrite(toolchain, toolchain.read_bytes().replace(b"flash-attn-4", b"flash-attn-5"))


def _make_layout_one_of_the_future(cache: Path) -> None:
    overwrite(cache / "format.json", b'{"layout": 2}')


def _empty(cache: Path) -> None:
    shutil.rmtree(cache)
    cache.mkdir(0o755)


def _make_a_file(cache: Path) -> None:
    shutil.rmtree(cache)
    cache.write_bytes(b"")


def _let_others_write_blob(cache: Path) -> None:
    blob_file(cache, _kernel_of(cache)).chmod(0o646)


def _let_others_write_root(cache: Path) -> None:
    cache.chmod(0o757)


@pytest.mark.parametrize(
    ("harm", "reason", "words"),
    [
        (_truncate_blob, "damaged", "its bytes do not have the digest that is its name"),
        (_flip_a_bit_of_blob, "damaged", "its bytes do not have the digest that is its name"),
        (_swap_blobs, "damaged", "its bytes do not have the digest that is its name"),
        (_delete_blob, "damaged", "is missing, though a record names it"),
        (_truncate_record, "damaged", "is damaged: no JSON"),
        (_swap_records, "damaged", "describes"),
        (_make_record_one_of_the_future, "damaged", "has schema 'fa4-precompile/record/99'"),
        (_damage_toolchain, "damaged", "is damaged"),
        (_delete_record, "absent", "has no record of kernel"),
        (_let_others_write_blob, "untrusted", "others can write it (mode 0646)"),
    ],
)
def test_strict_job_with_a_harmed_cache_is_told_what_is_wrong(
    jobs: Jobs, cache: Path, harm: Harm, reason: str, words: str
) -> None:
    harm(cache)
    missing = _missing(jobs, CAUSAL, cache)
    assert missing.reason == reason
    assert words in missing.text
    assert any(words in detail for detail in missing.details)


@pytest.mark.parametrize(
    ("harm", "reason", "words"),
    [
        (_make_layout_one_of_the_future, "layout", "does not say layout 1"),
        (_empty, "layout", "is no kernel cache"),
        (_make_a_file, "layout", "Not a directory"),
        (shutil.rmtree, "layout", "does not exist"),
        (_let_others_write_root, "untrusted", "others can write it (mode 0757)"),
    ],
)
def test_strict_job_with_a_root_that_is_of_no_use_is_told_so_at_its_start_and_of_the_kernel_that_no_other_root_has(
    jobs: Jobs, cache: Path, small_cache: Path, tmp_path: Path, harm: Harm, reason: str, words: str
) -> None:
    harm(cache)
    with pytest.raises(TaskFailed, match=re.escape(words)):
        jobs.run(loader_tasks.job, [CAUSAL], [cache], "error")
    missing = _missing(jobs, CAUSAL, cache, copy_cache(small_cache, tmp_path / "lacking", without="fwd"))
    assert missing.reason == reason
    assert words in missing.details[0]


def test_root_that_the_user_may_not_read_is_unreadable(jobs: Jobs, small_cache: Path, open_folder: Path) -> None:
    closed = copy_cache(small_cache, open_folder / "closed")
    (closed / "records").chmod(0o700 if os.geteuid() == 0 else 0o000)
    report = jobs.run(loader_tasks.job, [CAUSAL], [closed], "error", {}, True)
    (closed / "records").chmod(0o755)
    assert [missing.reason for missing in report.missing] == ["unreadable"]
    assert "Permission denied" in report.missing[0].text


def _rebuilt_with(cache: Path, other: Path, **changes: object) -> Toolchain:
    """Publish a cache's kernels as those of another toolchain, and return it."""
    (toolchain,) = Root(cache).toolchains()
    assert isinstance(toolchain, Toolchain)
    changed = dataclasses.replace(toolchain, **changes)  # type: ignore[arg-type]
    root = Root(other)
    Publisher(root).create()
    Publisher(root).publish_toolchain(changed)
    for record in records(cache):
        Publisher(root).publish(
            dataclasses.replace(record, toolchain=changed.id), blob_file(cache, record).read_bytes()
        )
    return changed


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("provider_source", "0" * 64, "provider source 000000000000 there, "),
        ("tvm_ffi", "0.99.1", "TVM-FFI 0.99 there, "),
        ("machine", "vax", "host vax there, "),
    ],
)
def test_cache_of_another_installation_is_not_used_and_the_difference_is_named(
    jobs: Jobs, small_cache: Path, tmp_path: Path, field: str, value: str, words: str
) -> None:
    _rebuilt_with(small_cache, tmp_path / "cache", **{field: value})
    missing = _missing(jobs, CAUSAL, tmp_path / "cache")
    assert missing.reason == "toolchain"
    assert words in missing.text


def test_kernel_of_another_installation_beside_fitting_ones_is_named(
    jobs: Jobs, cache: Path, small_cache: Path
) -> None:
    _delete_record(cache)
    _rebuilt_with(small_cache, cache, provider_source="0" * 64)
    missing = _missing(jobs, CAUSAL, cache)
    assert missing.reason == "toolchain"
    assert "was built for another installation: provider source 000000000000 there" in missing.text


def test_cache_of_another_compiler_is_a_miss_of_a_strict_job_and_serves_one_that_may_compile_which_says_so_once(
    jobs: Jobs, small_spec: Path, tmp_path: Path
) -> None:
    # The kernel's own name is in its code, so it takes a build to have one of another toolchain's.
    spec = read_spec(small_spec, target_book())
    entry = dataclasses.replace(spec.entries[0], variants=spec.entries[0].variants[1:])
    causal = dataclasses.replace(spec, entries=(entry,))
    other = dataclasses.replace(installed_toolchain(DEFAULT), dsl={"nvidia-cutlass-dsl": "99.0"})
    build(causal, spec.targets[0], other, Root(tmp_path / "cache"), NoProgress(), jobs=1)
    difference = f"dsl.{DSL} 99.0 there, {installed_toolchain(DEFAULT).dsl[DSL]} here"
    missing = _missing(jobs, CAUSAL, tmp_path / "cache")
    assert missing.reason == "toolchain"
    assert f"`{tmp_path / 'cache'}` was built for another installation: {difference}" in missing.text
    assert "; `FA4_PRECOMPILE_TOOLCHAIN=compatible` takes it all the same\n" in missing.text
    assert missing.text.endswith("\n  hint: build the cache with what the job has installed, and with its variables")
    for on_miss, setting in (("warn", ""), ("error", "compatible")):
        settings = {"FA4_PRECOMPILE_TOOLCHAIN": setting}
        begun = jobs.run(preload_tasks.install, tmp_path / "cache", False, on_miss, settings, [CAUSAL, CAUSAL])
        (said,) = begun.report.warnings
        assert difference in said
        ((counted, number),) = begun.report.stats["inexact"].items()
        assert difference in counted
        assert (number, begun.report.stats["resolved"]) == (1, 1)


def test_cache_without_its_toolchain_file_is_not_used(jobs: Jobs, cache: Path) -> None:
    shutil.rmtree(cache / "toolchains")
    missing = _missing(jobs, CAUSAL, cache)
    assert missing.reason == "toolchain"
    assert "no toolchain file" in missing.text


def test_job_on_a_gpu_of_another_arch_is_told_so(jobs: Jobs, small_cache: Path) -> None:
    missing = _missing(jobs, CAUSAL, small_cache, CUTE_DSL_ARCH="sm_103a", FLASH_ATTENTION_ARCH="sm_103")
    assert missing.reason == "arch"
    assert "is for sm_100a; this GPU is sm_103a" in missing.text


def test_job_on_a_gpu_with_other_sms_is_told_so_where_the_kernel_has_them_compiled_in(
    jobs: Jobs, small_cache: Path
) -> None:
    missing = _missing(jobs, PERSISTENT, small_cache, FLASH_ATTENTION_NUM_SMS="132")
    assert missing.reason == "sm-count"
    assert "is for GPUs with 148 SMs; this one has 132" in missing.text


def test_kernel_that_has_no_sms_compiled_in_is_used_on_any_number_of_them(jobs: Jobs, small_cache: Path) -> None:
    report = jobs.run(loader_tasks.job, [CAUSAL], [small_cache], "error", {"FLASH_ATTENTION_NUM_SMS": "132"})
    assert report.stats["resolved"] == 1


def test_job_whose_gpu_is_not_known_is_told_what_names_it(jobs: Jobs, small_cache: Path) -> None:
    missing = _missing(jobs, CAUSAL, small_cache, CUTE_DSL_ARCH=None)
    assert missing.reason == "device"
    assert "`CUTE_DSL_ARCH` names no arch" in missing.text


def test_job_with_a_setting_that_is_in_the_key_is_told_which(small_cache: Path) -> None:
    strict = {"FA4_PRECOMPILE_CACHE": str(small_cache), "FA4_PRECOMPILE_ON_MISS": "error"}
    (missing,) = report_of(run_from_scratch(command([CAUSAL]), **strict, FA_LOG_LEVEL="1")).missing
    assert missing.reason == "environment"
    assert missing.missing_env == {"FA_LOG_LEVEL": "0"}
    assert "hint: set in the job: FA_LOG_LEVEL=0" in missing.text


def test_roots_are_searched_in_order_past_those_that_are_of_no_use(
    jobs: Jobs, cache: Path, small_cache: Path, tmp_path: Path
) -> None:
    _truncate_blob(cache)
    empty, file = tmp_path / "empty", tmp_path / "file"
    Publisher(Root(empty)).create()
    file.write_bytes(b"")
    roots = [tmp_path / "nothing", file, empty, cache, small_cache]
    report = jobs.run(loader_tasks.job, [CAUSAL, PERSISTENT], roots)
    assert (report.stats["resolved"], report.stats["missed"], report.missing) == (2, {}, [])


def test_missing_kernel_names_what_is_wrong_with_each_root(jobs: Jobs, cache: Path, tmp_path: Path) -> None:
    _truncate_blob(cache)
    missing = _missing(jobs, CAUSAL, tmp_path / "nothing", cache)
    assert missing.reason == "damaged"
    assert "is damaged" in missing.details[0]
    assert "does not exist" in missing.details[1]


def test_job_that_may_compile_runs_and_says_once_why_it_compiles(jobs: Jobs, small_cache: Path, tmp_path: Path) -> None:
    # The postprocessing of a backward is what compiles fastest.
    (victim,) = [record for record in records(small_cache) if record.slot == "bwd_post"]
    harms: dict[str, Callable[[Path], object]] = {
        "absent": lambda cache: record_file(cache, victim).unlink(),
        "damaged": lambda cache: overwrite(blob_file(cache, victim), b"damaged"),
        "untrusted": lambda cache: blob_file(cache, victim).chmod(0o646),
    }
    started = {}
    for reason, harm in harms.items():
        cache = copy_cache(small_cache, tmp_path / reason)
        harm(cache)
        started[reason] = jobs.start(loader_tasks.job, [TRAINING, TRAINING], [cache], "warn")
    for reason, future in started.items():
        report = future.result()
        assert (report.stats["compiled"], report.stats["missed"], report.stats["resolved"]) == (1, {reason: 1}, 3)
        (warning,) = report.warnings
        assert f"no kernel for a call of slot `bwd_post` ({reason})" in warning
        assert "FlashAttention compiles it instead" in warning


def test_job_that_may_compile_silently_says_nothing(jobs: Jobs, small_cache: Path, tmp_path: Path) -> None:
    cache = copy_cache(small_cache, tmp_path / "cache", without="bwd_post")
    report = jobs.run(loader_tasks.job, [TRAINING, TRAINING], [cache], "compile")
    assert (report.stats["compiled"], report.stats["missed"], report.warnings) == (1, {"absent": 1}, [])

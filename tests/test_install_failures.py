"""An install that fails leaves nothing behind; and no fault of ours reaches a job, unless it is strict."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import install_tasks
from fake_job import Call
from jobs import Jobs, run_from_scratch

pytestmark = pytest.mark.compiles

CAUSAL = Call(causal=True)

# What is harmed, and what is said of it.
_HARMS = [
    ("no root", "does not exist"),
    ("run time", "libtvm_ffi.so"),
    ("provider", "can't be read: Permission denied"),
    ("slots", "no slots"),
    ("DSL", "strict mode can't watch this release of the DSL"),
]


@pytest.mark.parametrize(("harm", "words"), _HARMS, ids=[harm for harm, _ in _HARMS])
@pytest.mark.parametrize("first", ["warn", "error", "store"])
def test_strict_install_that_fails_leaves_the_loader_that_was_there(
    jobs: Jobs, small_cache: Path, harm: str, words: str, first: str
) -> None:
    error, is_same, report = jobs.run(install_tasks.failed_install, small_cache, harm, first, [CAUSAL])
    assert words in error
    assert is_same
    assert (report.stats["resolved"], report.stats["compiled"]) == (1, 0)


@pytest.mark.parametrize(("harm", "words"), _HARMS, ids=[harm for harm, _ in _HARMS])
def test_strict_install_that_fails_leaves_no_loader_where_there_was_none(
    jobs: Jobs, small_cache: Path, harm: str, words: str
) -> None:
    error, is_same, _ = jobs.run(install_tasks.failed_install, small_cache, harm, None, [])
    assert words in error
    assert is_same


def test_strict_install_that_fails_forbids_no_compile(jobs: Jobs, small_cache: Path) -> None:
    _, _, report = jobs.run(install_tasks.failed_install, small_cache, "no root", None, [CAUSAL])
    assert (report.missing, report.stats["refused"]) == ([], 0)  # it was compiled, as without us


@pytest.mark.parametrize("harm", ["run time", "provider", "slots"])
@pytest.mark.parametrize("on_miss", ["warn", "store"])
def test_job_that_may_compile_does_so_whatever_of_ours_is_harmed(
    jobs: Jobs, small_cache: Path, harm: str, on_miss: str
) -> None:
    warnings, are_its_own = jobs.run(install_tasks.install_that_is_harmed, small_cache, harm, on_miss)
    assert are_its_own
    (warning,) = warnings
    assert "kernels are compiled as without fa4-precompile" in warning


def test_import_of_flash_attention_works_beside_a_broken_installation(small_cache: Path, tmp_path: Path) -> None:
    broken = tmp_path / "apache_tvm_ffi-99.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Name: apache-tvm-ffi\n")  # test_foreign has the other ways to be broken
    program = "import torch, flash_attn.cute.interface; print('it works')"
    for on_miss, code in (("warn", 0), ("error", 1)):
        job = run_from_scratch(
            [sys.executable, "-c", program],
            FA4_PRECOMPILE_CACHE=str(small_cache),
            FA4_PRECOMPILE_ON_MISS=on_miss,
            PYTHONPATH=str(tmp_path),
        )
        assert job.code == code, job.err
        assert "the metadata of `apache-tvm-ffi` can't be used" in job.err


def test_many_installs_leave_no_trace(jobs: Jobs, small_cache: Path) -> None:
    words = ["warn", "error", "compile", "store"]
    assert jobs.run(install_tasks.install_and_uninstall, small_cache, words, 100) == (True, 0)

"""The loader in real jobs: kernels come from the cache, in any process and thread, and nothing is compiled."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import loader_tasks
import product
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.store import Root
from fa4_precompile.loader.resolve import Cache
from fa4_precompile.loader.served import Served
from fake_job import Call
from jobs import Jobs, command, report_of, run_from_scratch
from loader_tasks import SMALL
from product import origin, records
from support import snapshot

pytestmark = pytest.mark.compiles


def _assert_all_resolved(stats: Mapping[str, Any], cache: Path) -> None:
    kernels = records(cache)
    assert (stats["resolved"], stats["preloaded"]) == (len(kernels), 0)
    assert (stats["missed"], stats["compiled"], stats["stored"], stats["refused"]) == ({}, 0, 0, 0)
    assert stats["saved_seconds"] == pytest.approx(sum(origin(cache, one).compile_seconds or 0 for one in kernels))
    assert stats["load_seconds"] > 0
    assert stats["compile_seconds"] == 0


def test_job_started_by_its_environment_resolves_everything_and_says_so_when_it_ends(small_cache: Path) -> None:
    done = run_from_scratch(
        command([*SMALL, *SMALL]),
        FA4_PRECOMPILE_CACHE=str(small_cache),
        FA4_PRECOMPILE_ON_MISS="error",
        FA4_PRECOMPILE_REPORT="1",
    )
    report = report_of(done)
    _assert_all_resolved(report.stats, small_cache)
    assert (report.missing, report.warnings) == ([], [])
    (line,) = [line for line in done.err.splitlines() if line.startswith("fa4-precompile: ")]
    assert line.startswith("fa4-precompile: 6 kernels resolved in ")
    assert ", 0 missed, 0 compiled, " in line


@pytest.mark.parametrize("first", ["flash_attn.cute.utils", pytest.param("cutlass.torch", marks=pytest.mark.long)])
def test_job_that_imports_flash_attention_before_torch_resolves_everything(small_cache: Path, first: str) -> None:
    program = (
        f"import sys; assert not {{'torch', 'cutlass', 'flash_attn'}} & sys.modules.keys(); import {first}\n"
        "import fake_job; print(fake_job.report_on(fake_job.calls(sys.argv[1])).render())"
    )
    strict = {"FA4_PRECOMPILE_CACHE": str(small_cache), "FA4_PRECOMPILE_ON_MISS": "error"}
    _, _, calls = command(SMALL)
    report = report_of(run_from_scratch([sys.executable, "-c", program, calls], **strict))
    _assert_all_resolved(report.stats, small_cache)


@pytest.mark.long
def test_job_that_installs_before_it_imports_flash_attention_resolves_everything(small_cache: Path) -> None:
    program = (
        "import sys, fa4_precompile; fa4_precompile.install(sys.argv[1], on_miss='error')\n"
        "assert not {'torch', 'cutlass', 'flash_attn'} & sys.modules.keys()\n"
        "import fake_job; print(fake_job.report_on(fake_job.calls(sys.argv[2])).render())"
    )
    _, _, calls = command(SMALL)
    report = report_of(run_from_scratch([sys.executable, "-c", program, str(small_cache), calls]))
    _assert_all_resolved(report.stats, small_cache)


def test_job_that_installs_after_it_imported_flash_attention_resolves_everything(jobs: Jobs, small_cache: Path) -> None:
    report = jobs.run(loader_tasks.job, SMALL, [small_cache])
    _assert_all_resolved(report.stats, small_cache)
    assert (report.missing, report.warnings) == ([], [])


def test_processes_below_a_run_inherit_its_loader_and_each_reports_for_itself(
    small_cache: Path, tmp_path: Path
) -> None:
    file = tmp_path / "report.jsonl"
    # A launcher that starts two jobs; one of them misses a kernel, and ends as any job does whose call raises.
    launcher = (
        "import json, subprocess, sys\n"
        "started = [subprocess.Popen(command) for command in map(json.loads, sys.argv[1:])]\n"
        "print([process.wait() for process in started])"
    )
    failing = [sys.executable, "-c", "import fake_job; fake_job.make(fake_job.Call(head_dim=96))"]
    done = run_from_scratch(
        [
            *product.command("run", "--cache", small_cache, "--strict", "--report", file, "--"),
            *(sys.executable, "-c", launcher, json.dumps(command(SMALL)), json.dumps(failing)),
        ]
    )
    assert done.out.splitlines()[-1] == "[0, 1]", done.err
    assert "KernelMissing: no kernel for a call of slot `fwd` (absent)" in done.err
    good, bad = sorted(map(json.loads, file.read_text().splitlines()), key=lambda line: -int(line["resolved"]))
    assert good["process"] != bad["process"]
    _assert_all_resolved(good, small_cache)
    assert (bad["resolved"], bad["missed"], bad["compiled"]) == (0, {"absent": 1}, 0)


def test_second_install_replaces_the_first_and_uninstall_gives_flash_attentions_own_caches_back(
    jobs: Jobs, small_cache: Path, tmp_path: Path
) -> None:
    Publisher(Root(tmp_path / "empty")).create()
    found = jobs.run(loader_tasks.install_twice_and_uninstall, tmp_path / "empty", small_cache)
    assert found["slots"] >= {"fwd", "bwd", "bwd_pre", "bwd_post", "fwd_combine"}
    assert found["first"] == found["second"] == found["given back"] == found["slots"]
    _assert_all_resolved(found["report"].stats, small_cache)
    assert (found["afterwards"].resolved, found["afterwards"].saved_seconds) == (0, 0)


def test_process_that_installs_twice_reports_once(jobs: Jobs, small_cache: Path, tmp_path: Path) -> None:
    jobs.run(loader_tasks.report_of_two_loaders, small_cache, tmp_path / "report.jsonl")
    (line,) = (tmp_path / "report.jsonl").read_text().splitlines()
    assert json.loads(line)["resolved"] == 1


def test_what_was_compiled_with_one_loader_is_not_compiled_again_with_the_next(
    jobs: Jobs, small_cache: Path, tmp_path: Path
) -> None:
    cache = product.copy_cache(small_cache, tmp_path / "cache", without="bwd_post")
    first, second = jobs.run(loader_tasks.compile_with_one_loader_after_another, cache, Call(training=True))
    assert (first.stats["compiled"], first.stats["missed"]) == (1, {"absent": 1})
    assert (second.stats["compiled"], second.stats["missed"]) == (0, {"absent": 1})


def test_threads_that_look_up_at_once_agree_on_one_function_each_key_and_get_the_right_one(
    jobs: Jobs, small_cache: Path
) -> None:
    signatures, stats = jobs.run(loader_tasks.look_up_in_threads, small_cache, 16)
    # A parameter that only the kernels of a slot have.
    marks = {"fwd": "mPageTable", "bwd": "mdK_semaphore", "bwd_pre": "mPdPsum", "bwd_post": "sink_tensors"}
    assert len(signatures) == 6
    for slot, (signature,) in signatures:
        assert [name for name, mark in marks.items() if f"{mark}:" in signature] == [slot]
    assert (stats.missed, stats.compiled) == ({}, 0)


def test_key_that_threads_look_up_at_once_is_counted_once(jobs: Jobs, small_cache: Path) -> None:
    assert jobs.run(loader_tasks.look_up_one_key_in_threads, small_cache, 4).resolved == 1


def test_child_that_is_forked_looks_up_what_its_parent_did_and_did_not(jobs: Jobs, small_cache: Path) -> None:
    assert jobs.run(loader_tasks.look_up_in_forks, small_cache) == [6, 6]


@pytest.mark.parametrize(
    ("on_miss", "slow"),
    [
        ("compile", "fa4_precompile.loader.resolve.job_device"),
        ("store", "fa4_precompile.loader.keep.installed_toolchain"),
    ],
)
def test_child_that_is_forked_while_a_thread_looks_up_does_not_hang(
    jobs: Jobs, small_cache: Path, tmp_path: Path, on_miss: str, slow: str
) -> None:
    lacking = product.copy_cache(small_cache, tmp_path / "lacking", without="bwd_post")
    found = jobs.run(loader_tasks.look_up_in_fork_beside_a_thread, small_cache, lacking, on_miss, slow)
    assert found == 5


def test_eight_jobs_at_once_that_do_not_own_the_cache_resolve_everything_and_change_nothing(
    jobs: Jobs, small_cache: Path, open_folder: Path
) -> None:
    cache, company = open_folder / "cache", open_folder / "company"
    _copy_read_only(small_cache, cache)
    company.mkdir()
    company.chmod(0o777)
    before, inodes = snapshot(cache), _inodes(cache)
    started = [jobs.start(loader_tasks.job_in_company, company, 8, SMALL, cache) for _ in range(8)]
    for future in started:
        _assert_all_resolved(future.result().stats, small_cache)
    assert len(list(company.iterdir())) == 8
    assert (snapshot(cache), _inodes(cache)) == (before, inodes)


def _copy_read_only(cache: Path, copy: Path) -> None:
    shutil.copytree(cache, copy)
    for path in [*copy.rglob("*"), copy]:
        path.chmod(0o555 if path.is_dir() else 0o444)


def _inodes(folder: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_ino for path in [folder, *folder.rglob("*")]}


@pytest.mark.parametrize(("owner", "method"), [(Cache, "resolve"), (Served, "_lookup_key")])
def test_fault_of_ours_is_said_and_flash_attention_compiles(
    jobs: Jobs, tmp_path: Path, owner: type, method: str
) -> None:
    call = Call(varlen=True)
    report = jobs.run(loader_tasks.job_with_a_fault, owner, method, tmp_path / "none", "warn", call)
    assert not isinstance(report, str)
    assert (report.stats["resolved"], report.stats["compiled"]) == (0, 1)
    assert any("a lookup in slot `fwd` failed: RuntimeError: nobody foresaw this" in said for said in report.warnings)


def test_fault_of_ours_is_raised_in_strict_mode(jobs: Jobs, small_cache: Path) -> None:
    arguments = Cache, "resolve", small_cache, "error", loader_tasks.SMALL[0]
    assert jobs.run(loader_tasks.job_with_a_fault, *arguments) == "nobody foresaw this"

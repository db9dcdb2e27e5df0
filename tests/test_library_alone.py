"""The DSL's run-time library without the rest of it: for jobs without the compiler whose cache does not have it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from job_venv import make_job_venv

import jobs
from fa4_precompile.loader import resolve
from fa4_precompile.loader.resolve import Cache
from fa4_precompile.providers.dsl.installation import DSL, require_runtime_library
from fake_job import Call
from loadable import fitting_toolchain, publish_loadable
from product import copy_cache
from support import write_distribution


@pytest.mark.long
@pytest.mark.compiles
def test_run_time_library_that_is_installed_alone_serves_a_strict_job_and_is_no_compiler(
    small_spec: Path, small_cache: Path, tmp_path: Path
) -> None:
    cache = copy_cache(small_cache, tmp_path / "cache")
    (listed,) = (cache / "libraries").iterdir()
    listed.unlink()
    python = str(make_job_venv(tmp_path / "venv"))
    site = tmp_path / "site"
    place = site / "nvidia_cutlass_dsl" / "cu12" / "lib"
    place.mkdir(parents=True)
    (place / "libcute_dsl_runtime.so").symlink_to(require_runtime_library())
    write_distribution(site, f"{DSL}-libs-cu12", "4.8.1", {})
    path = {"PYTHONPATH": os.pathsep.join([str(site), str(Path(__file__).parent)])}

    strict = {"FA4_PRECOMPILE_CACHE": str(cache), "FA4_PRECOMPILE_ON_MISS": "error"}
    calls = jobs.command([Call(), Call(training=True)])
    report = jobs.report_of(jobs.run_from_scratch([python, *calls[1:]], **strict, **path))
    assert (report.stats["resolved"], report.stats["missed"], report.stats["inexact"]) == (5, {}, {})

    of_ours = [python, "-m", "fa4_precompile"]
    doctor = jobs.run_from_scratch([*of_ours, "doctor", "--role", "job", "--cache", str(cache), "--json"], **path)
    assert doctor.code == 0, doctor.out
    found = {item["what"]: item["found"] for item in json.loads(doctor.out)}
    assert found["run-time libraries"] == "libtvm_ffi.so and libcute_dsl_runtime.so load"
    assert found["compiler"].startswith("not installed")
    checked = jobs.run_from_scratch([*of_ours, "check", str(small_spec), "--cache", str(cache)], **path)
    assert checked.code == 0, checked.out + checked.err


def test_cache_from_another_kind_of_machine_says_what_brings_the_library_that_it_does_not_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "runtime_library", lambda: None)
    elsewhere = replace(fitting_toolchain(), host_compiler={"ziglang": "0.17.1"}, dsl={DSL: "4.8.1"}, dsl_cuda=13)
    publish_loadable(tmp_path / "root", 1, toolchain=elsewhere)
    said = Cache([tmp_path / "root"]).shortfall()
    assert "built on a machine of another kind" in said
    assert f"`pip install --no-deps {DSL}-libs-cu13==4.8.1` brings it" in said
    publish_loadable(tmp_path / "root", 1)
    assert Cache([tmp_path / "root"]).shortfall().endswith("building into it again adds that")

"""What may differ between the toolchain that built a kernel and what is installed: each row of the table."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cuda_stub import with_stub

from checkout import ROOT
from command_line import Cli, documents, finished_cache, write_spec
from fa4_precompile.cache.compared import COMPARED, Rule, RunTime
from fa4_precompile.cache.fit import Fit
from fa4_precompile.cache.outcome import MissReason
from fa4_precompile.cache.toolchain import Toolchain, abi
from fa4_precompile.commands.doctor import Role, examine
from fa4_precompile.loader.preload import candidates
from fa4_precompile.loader.resolve import Cache
from fa4_precompile.loader.wanted import Wanted
from fa4_precompile.providers import installed as installed_module
from fa4_precompile.providers.dsl.installation import DSL
from fa4_precompile.providers.installed import installed_run_time, installed_toolchain
from fa4_precompile.providers.registry import DEFAULT
from loadable import B200, find_kernel, find_miss, publish_loadable
from support import make_toolchain

_ADVICE = "`FA4_PRECOMPILE_TOOLCHAIN=compatible` takes it all the same"

# By field: another value, and how messages name both.
_ALWAYS: Mapping[str, tuple[object, str]] = {
    "provider": ("another", "provider another there, flash-attn-4 here"),
    "provider_source": ("f" * 64, "provider source ffffffffffff there, "),
    "machine": ("pdp11", "host pdp11 there, "),
}
_EXACT: Mapping[str, tuple[object, str]] = {
    "traced_libraries": ({"quack": "b" * 64}, "traced_libraries.quack bbbbbbbbbbbb there, "),
    "dsl": ({DSL: "0.1"}, f"dsl.{DSL} 0.1 there, "),
    "dsl_cuda": (11, "CUDA 11 there, "),
    "environment": ({"CUTE_DSL_LINEINFO": "1"}, "environment.CUTE_DSL_LINEINFO 1 there, absent here"),
}
_EITHER = pytest.mark.parametrize("fit", Fit)


@cache
def _installed() -> Toolchain:
    return installed_toolchain(DEFAULT)


def _publish(root: Path, number: int = 1, **changes: Any) -> Toolchain:
    """Publish a function that a toolchain built which differs so from the installed one."""
    toolchain = replace(_installed(), **changes)
    publish_loadable(root, number, toolchain=toolchain)
    return toolchain


def _require_miss(root: Path, fit: Fit, words: str) -> str:
    miss = find_miss(Cache([root], fit=fit))
    assert miss.reason is MissReason.TOOLCHAIN
    assert f"`{root}` was built for another installation: " in miss.detail
    assert words in miss.detail
    return miss.detail


# The table


def test_table_has_a_row_for_each_field_of_a_toolchain() -> None:
    assert [row.field for row in COMPARED] == [field.name for field in dataclasses.fields(Toolchain)]


def test_table_names_tests_that_are_there() -> None:
    for row in COMPARED:
        file, _, name = row.test.partition("::")
        assert f"\ndef {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8")


def test_table_of_the_documents_is_the_table() -> None:
    section = (ROOT / "docs/reference/versions.md").read_text(encoding="utf-8").partition("## What may differ")[2]
    rows = re.findall(r"^\| `.*\|$", section.partition("\n## ")[0], re.MULTILINE)
    assert rows == [row.render() for row in COMPARED]


def test_table_says_of_each_field_what_the_tests_here_are_about() -> None:
    rules = {row.field: (row.always, row.exact) for row in COMPARED}
    assert {field for field, both in rules.items() if both == (Rule.EQUAL, Rule.EQUAL)} == set(_ALWAYS)
    assert {field for field, (_, exact) in rules.items() if exact is Rule.EQUAL} == {*_ALWAYS, *_EXACT}


# Each rule


@_EITHER
@pytest.mark.parametrize("field", _ALWAYS)
def test_field_that_must_always_be_equal_is_a_miss_under_either_setting(tmp_path: Path, field: str, fit: Fit) -> None:
    value, words = _ALWAYS[field]
    _publish(tmp_path / "root", 1, **{field: value})
    assert _ADVICE not in _require_miss(tmp_path / "root", fit, words)


@_EITHER
def test_field_that_may_differ_is_served_under_either_setting_and_is_nothing_to_say(tmp_path: Path, fit: Fit) -> None:
    may_differ = {"provider_version": "another", "host_compiler": {"ziglang": "another"}}
    _publish(tmp_path / "root", 3, **may_differ, tvm_ffi=f"{abi(_installed().tvm_ffi)}.99")
    kernels = Cache([tmp_path / "root"], fit=fit)
    assert find_kernel(kernels).function() == 3
    assert kernels.inexact == {}


@pytest.mark.parametrize("field", _EXACT)
def test_field_that_changes_what_is_compiled_is_a_miss_under_exact_only(tmp_path: Path, field: str) -> None:
    value, words = _EXACT[field]
    toolchain = _publish(tmp_path / "root", 4, **{field: value})
    assert _require_miss(tmp_path / "root", Fit.EXACT, words).endswith(_ADVICE)
    kernels = Cache([tmp_path / "root"], fit=Fit.COMPATIBLE)
    assert find_kernel(kernels).function() == 4
    assert kernels.inexact.keys() == {toolchain.id}
    assert words in kernels.inexact[toolchain.id]


@_EITHER
def test_tvm_ffi_is_compared_by_major_and_minor_version(tmp_path: Path, fit: Fit) -> None:
    here = abi(_installed().tvm_ffi)
    _publish(tmp_path / "other", tvm_ffi="0.99.1")
    assert _ADVICE not in _require_miss(tmp_path / "other", fit, f"TVM-FFI 0.99 there, {here} here")
    _publish(tmp_path / "root", 5, tvm_ffi=f"{here}.99")
    assert find_kernel(Cache([tmp_path / "root"], fit=fit)).function() == 5


_ASK = """
import os, sys
from pathlib import Path
from fa4_precompile.cache.fit import Fit
from fa4_precompile.loader.resolve import Cache
from loadable import B200, KEY

for cuda in (12, 13, 14):
    os.environ["STUB_CUDA"] = f"{cuda}000"
    for fit in Fit:
        cache = Cache([Path(sys.argv[1])], fit=fit)
        found = None if cache.has_toolchain else cache.resolve("fwd", KEY, B200)
        print(cuda, fit.value, "fits" if found is None else f"{found.reason.value} {found.detail}")
"""


def test_cubin_of_a_cuda_that_the_driver_cannot_take_is_a_miss_that_names_both(tmp_path: Path) -> None:
    _publish(tmp_path / "root", 6, dsl_cuda=13)
    environment = with_stub(tmp_path, tmp_path / "notes")
    command = [sys.executable, "-c", _ASK, str(tmp_path / "root")]
    done = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=True)
    said = {(cuda, fit): words for cuda, fit, words in (line.split(" ", 2) for line in done.stdout.splitlines())}
    for fit in Fit:
        assert said["12", fit.value].startswith("toolchain ")
        assert "CUDA 13 there, 12 is the driver's here" in said["12", fit.value]
        assert _ADVICE not in said["12", fit.value]
    assert said["13", "compatible"] == said["14", "compatible"] == "fits"
    assert not (tmp_path / "notes").exists(), "the driver was asked for more than its version"


def test_machine_without_a_driver_takes_cubins_of_any_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed_module, "driver_cuda_major", lambda: None)
    _publish(tmp_path / "root", 7, dsl_cuda=99)
    assert find_kernel(Cache([tmp_path / "root"])).function() == 7


# What is not installed, and what can't be told


def test_installation_that_compares_all_is_the_one_that_builds_and_one_without_a_compiler_compares_less() -> None:
    here = installed_run_time(DEFAULT)
    other = make_toolchain(provider_source=here.provider_source, tvm_ffi=here.tvm_ffi, dsl_cuda=11)
    assert here.differences(_installed(), Fit.EXACT) == []
    fields = {words.partition(" ")[0].partition(".")[0] for words in here.differences(other, Fit.EXACT)[:-1]}
    assert fields == {"traced_libraries", "dsl", "CUDA"}
    bare = replace(here, traced_libraries=None, dsl=None, dsl_cuda=None)
    assert bare.differences(other, Fit.EXACT) == []
    assert bare.differences(replace(other, environment={"CUTE_DSL_LINEINFO": "1"}), Fit.EXACT) == [
        "environment.CUTE_DSL_LINEINFO 1 there, absent here",
        _ADVICE,
    ]


def test_job_whose_ptxas_cannot_be_read_takes_no_kernel_for_one_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And goes on to be served where that was not asked for."""
    monkeypatch.setenv("CUTE_DSL_PTXAS_PATH", str(tmp_path / "gone"))
    publish_loadable(tmp_path / "root", 8, toolchain=replace(_installed(), environment={}))
    words = f"environment.CUTE_DSL_PTXAS_PATH absent there, {tmp_path / 'gone'} here"
    _require_miss(tmp_path / "root", Fit.EXACT, words)
    assert find_kernel(Cache([tmp_path / "root"])).function() == 8


def test_run_time_that_differs_always_and_under_exact_is_told_all_and_given_no_advice() -> None:
    here = RunTime("flash-attn-4", "a" * 64, "0.1.15", "x86_64", {}, {}, {DSL: "4.8.1"}, 12, 12)
    there = make_toolchain(tvm_ffi="0.1.11", machine="pdp11", traced_libraries={}, dsl={DSL: "4.8.0"}, dsl_cuda=13)
    assert here.differences(there, Fit.EXACT) == [
        "CUDA 13 there, 12 is the driver's here",
        "host pdp11 there, x86_64 here",
        f"dsl.{DSL} 4.8.0 there, 4.8.1 here",
    ]


def test_distributions_that_differ_in_the_same_way_are_told_once() -> None:
    names = [DSL, f"{DSL}-libs-base", f"{DSL}-libs-cu12"]
    here = RunTime("p", "a" * 64, "0.1.15", "x86_64", {}, None, dict.fromkeys(names, "4.8.1"))
    there = make_toolchain(dsl=dict.fromkeys([*names[:2], f"{DSL}-libs-cu13"], "4.7.1"))
    assert [words for words in here.inexact(there) if words.startswith("dsl.")] == [
        f"dsl.{DSL} and 1 more 4.7.1 there, 4.8.1 here",
        f"dsl.{DSL}-libs-cu12 absent there, 4.8.1 here",
        f"dsl.{DSL}-libs-cu13 4.7.1 there, absent here",
    ]


# What the others say is the same


def test_nearest_of_several_toolchains_serves_and_the_exact_one_is_nearest(tmp_path: Path) -> None:
    for number in range(4):
        _publish(tmp_path / "root", number, dsl={DSL: f"0.{number}"}, environment={"CUTE_DSL_LINEINFO": str(number)})
    _publish(tmp_path / "root", 41, dsl={DSL: "0.9"})
    assert find_kernel(Cache([tmp_path / "root"])).function() == 41
    _publish(tmp_path / "root", 42)
    for fit in Fit:
        assert find_kernel(Cache([tmp_path / "root"], fit=fit)).function() == 42


def test_explanation_of_a_kernel_that_an_inexact_toolchain_has_says_what_the_root_says(tmp_path: Path) -> None:
    _publish(tmp_path / "root", dsl={DSL: "0.1"})
    kernels = Cache([tmp_path / "root"], fit=Fit.EXACT)
    ((_, _, unfit),) = kernels.catalog
    assert find_miss(kernels).detail.endswith("; ".join(unfit))
    ((_, _, unfit),) = Cache([tmp_path / "root"]).catalog
    assert unfit == []


@pytest.mark.parametrize(
    ("arguments", "environment", "code"),
    [
        ([], {}, 1),
        (["--toolchain", "compatible"], {}, 0),
        ([], {"FA4_PRECOMPILE_TOOLCHAIN": "compatible"}, 0),
    ],
)
def test_check_says_what_a_strict_job_would_or_what_the_setting_says(
    cli: Cli, tmp_path: Path, arguments: list[str], environment: dict[str, str], code: int
) -> None:
    spec = write_spec(tmp_path)
    finished_cache(tmp_path / "full", spec, replace(_installed(), dsl={DSL: "0.1"}), "b200")
    done = cli("check", spec, "--cache", tmp_path / "full", *arguments, **environment)
    assert done.code == code
    said = done.out if code else done.err
    assert f"dsl.{DSL} 0.1 there, {_installed().dsl[DSL]} here" in said
    assert (_ADVICE in said) == bool(code)


def test_check_prefers_the_build_of_what_is_installed_and_takes_one_that_differs_in_what_may(
    cli: Cli, tmp_path: Path
) -> None:
    spec = write_spec(tmp_path)
    finished_cache(tmp_path / "full", spec, replace(_installed(), tvm_ffi=f"{abi(_installed().tvm_ffi)}.99"), "b200")
    done = cli("check", spec, "--cache", tmp_path / "full")
    assert (done.code, "fits: 2 kernels" in done.out) == (0, True)
    finished_cache(tmp_path / "full", spec, replace(_installed(), dsl={DSL: "0.1"}), "b200")
    found = documents(cli("check", spec, "--cache", tmp_path / "full", "--toolchain", "compatible", "--json"))
    assert (found["findings"], found["inexact"]) == ([], [])


@pytest.mark.parametrize(
    ("changes", "environment", "is_ok", "words"),
    [
        ({}, {"FA4_PRECOMPILE_ON_MISS": "error"}, True, "has kernels of what is installed here"),
        ({"dsl": {DSL: "0.1"}}, {}, True, f"by another toolchain than is installed here: dsl.{DSL} 0.1 there"),
        ({"dsl": {DSL: "0.1"}}, {"FA4_PRECOMPILE_ON_MISS": "error"}, False, f"dsl.{DSL} 0.1 there"),
        ({"machine": "pdp11"}, {}, False, "was built for another installation: host pdp11 there"),
    ],
    ids=["exact", "inexact", "inexact, strict", "unfit"],
)
def test_doctor_says_whether_a_job_here_takes_the_kernels(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    environment: dict[str, str],
    is_ok: bool,
    words: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    _publish(tmp_path / "root", 1, **changes)
    (item,) = [item for item in examine(tmp_path / "root", Role.JOB) if item.what == "kernels"]
    assert item.ok is is_ok
    assert words in item.found


def test_preload_of_kernels_that_do_not_fit_says_why(tmp_path: Path) -> None:
    _publish(tmp_path / "root", dsl={DSL: "0.1"})
    found = candidates(Cache([tmp_path / "root"], fit=Fit.EXACT), Wanted(), B200)
    assert found.kernels == []
    assert found.problem.startswith("there is no manifest for sm_100a with 148 SMs; ")
    assert f"dsl.{DSL} 0.1 there" in found.problem

"""Real kernels that a list of the test's own calls bad: refused, built all the same, found, and told of in jobs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import loader_tasks
from command_line import Cli, documents, require_error
from fa4_precompile.cache.origin import Origin
from fa4_precompile.cache.store import Root
from jobs import Jobs
from loader_tasks import SMALL
from product import copy_cache, origin, records

pytestmark = pytest.mark.compiles

_LIST = """version: 1
entries:
- {{id: turns-green, what: the gradient turns green, source: 'https://example.org/1', dsl: '>=4', archs: {arch},
   slots: bwd, key: {{head_dim: 64, causal: true}}}}
- {{id: not-ours, what: it hangs, source: 'https://example.org/2', dsl: <4, slots: fwd}}
"""
_ENTRY = "the gradient turns green (`turns-green`, https://example.org/1)"
_WARNED = f"warning: 1 kernel known to be bad: {_ENTRY}"
_VARIABLE = "FA4_PRECOMPILE_KNOWN_BAD"

MakeList = Callable[[str], Path]


@pytest.fixture
def make_list(tmp_path: Path) -> MakeList:
    """Write a list that hits the small spec's backward for an arch, and return its path."""

    def write(arch: str) -> Path:
        path = tmp_path / "mine.yaml"
        path.write_text(_LIST.format(arch=arch))
        return path

    return write


# Builds


def test_build_refuses_what_the_list_hits_and_builds_it_where_that_is_allowed(
    cli: Cli, small_cache: Path, small_spec: Path, make_list: MakeList, tmp_path: Path
) -> None:
    cache = copy_cache(small_cache, tmp_path / "cache", without="bwd")
    build = ("build", small_spec, "--cache", cache, "--known-bad", make_list("sm_100a"))
    (bwd,) = [record for record in records(small_cache) if record.slot == "bwd"]

    refused = cli(*build)
    assert refused.code == 4
    what = f"error: refused, `bwd of pass=bwd dtype=bf16 head_dim=64 causal` for b200 is known to be bad: {_ENTRY}"
    assert what in refused.err.splitlines()
    assert "--allow-known-bad" in refused.err
    assert bwd.id not in {record.id for record in records(cache)}

    done = cli(*build, "--allow-known-bad", "--json")
    assert done.code == 0, done.err
    known = {"id": "turns-green", "what": "the gradient turns green", "source": "https://example.org/1"}
    assert documents(done)["known_bad"] == [{**known, "kernels": [bwd.id]}]
    assert (documents(done)["built"], _WARNED in done.err.splitlines()) == (1, True)
    assert Root(cache).read(bwd.toolchain, bwd.id).record == bwd  # what was allowed is no part of a kernel
    assert origin(cache, bwd).allowed == {"turns-green": "the gradient turns green (https://example.org/1)"}

    again = cli(*build)
    assert (again.code, _WARNED in again.err.splitlines()) == (0, True), again.err  # it is there already

    shown = cli("show", bwd.id[:12], "--cache", cache, **{_VARIABLE: str(make_list("sm_100"))}).out.splitlines()
    assert f"known bad:    {_ENTRY}" in shown
    told = "allowed:      when it was built it was known: the gradient turns green (https://example.org/1)"
    assert told in shown
    assert told in cli("show", bwd.id[:12], "--cache", cache).out.splitlines()  # the list has forgotten it


def test_build_for_two_targets_refuses_the_second_before_it_begins_with_the_first(
    cli: Cli, make_list: MakeList, tmp_path: Path
) -> None:
    spec = tmp_path / "two.yaml"
    kernels = "kernels: [{name: a, pass: bwd, dtype: bf16, head_dim: 64, causal: true}]"
    spec.write_text(f"version: 1\nprovider: flash-attn-4\ntargets: [b200, b300]\n{kernels}\n")
    done = cli("build", spec, "--cache", tmp_path / "cache", "--json", **{_VARIABLE: str(make_list("sm_103a"))})
    assert "for b300 is known to be bad" in require_error(done, 4)
    assert not (tmp_path / "cache").exists()


def test_plan_marks_what_the_list_hits(cli: Cli, small_spec: Path, make_list: MakeList) -> None:
    done = cli("plan", small_spec, "--known-bad", make_list("sm_100a"))
    marked = [line for line in done.out.splitlines() if "[known bad: " in line]
    assert [(line.split()[0], line.rpartition("  ")[2]) for line in marked] == [("bwd", "[known bad: turns-green]")]
    assert _WARNED in done.err.splitlines()


# Looking into a cache


def test_check_and_doctor_warn_of_what_the_list_hits_and_find_nothing_wrong_by_it(
    cli: Cli, small_cache: Path, small_spec: Path, make_list: MakeList
) -> None:
    mine = {_VARIABLE: str(make_list("sm_100a"))}
    check = ("check", small_spec, "--cache", small_cache)
    done = cli(*check, **mine)
    assert (done.code, f"b200: {_WARNED}" in done.err.splitlines()) == (0, True), done.err
    (known,) = documents(cli(*check, "--json", **mine))["known_bad"]
    assert (known["id"], len(known["kernels"])) == ("turns-green", 1)
    assert documents(cli(*check, "--json"))["known_bad"] == []

    doctor = cli("doctor", "--cache", small_cache, **mine).out.splitlines()
    warned = [line for line in doctor if line.startswith("warn known bad: ") and line.endswith(_ENTRY)]
    told = ["(sm_100a; bwd; head_dim = 64, causal = true)", "1 kernel for b200"]
    assert [part in line for part, line in zip(told, warned, strict=True)] == [True, True]
    items = documents(cli("doctor", "--role", "job", "--json", "--cache", small_cache, **mine))
    assert [item["ok"] for item in items if item["what"] == "known bad"] == [True]


def test_list_that_cannot_be_meant_ends_a_command_with_two_and_names_its_place(
    cli: Cli, small_cache: Path, small_spec: Path, make_list: MakeList
) -> None:
    mine = make_list("sm_1O3a")
    for command in (
        ("build", small_spec, "--cache", small_cache),
        ("check", small_spec, "--cache", small_cache),
        ("show", records(small_cache)[0].id, "--cache", small_cache),
        ("run", "--cache", small_cache, "--", "true"),
    ):
        done = cli(*command, **{_VARIABLE: str(mine)})
        assert f"{mine}:3:105: `sm_1O3a` is no CUDA arch" in require_error(done, 2)
    doctor = cli("doctor", "--cache", small_cache, **{_VARIABLE: str(mine)}).out
    assert f"FAIL known bad: {mine}:3:105: `sm_1O3a`" in doctor


# Jobs


@pytest.mark.parametrize("on_miss", ["error", "warn"])
def test_job_is_told_once_of_what_the_list_hits_and_uses_it(
    jobs: Jobs, small_cache: Path, make_list: MakeList, on_miss: str
) -> None:
    mine = {_VARIABLE: str(make_list("sm_100a"))}
    report = jobs.run(loader_tasks.job, [*SMALL, *SMALL], [small_cache], on_miss, mine)
    (warning,) = report.warnings
    assert warning.endswith(f" of slot `bwd` is used, and is known to be bad: {_ENTRY}")
    assert (report.stats["resolved"], report.stats["missed"]) == (6, {})


def test_job_of_another_arch_or_without_a_list_is_told_nothing(
    jobs: Jobs, small_cache: Path, make_list: MakeList
) -> None:
    mine = {_VARIABLE: str(make_list("sm_103a"))}
    assert jobs.run(loader_tasks.job, SMALL, [small_cache], "error", mine).warnings == []
    assert jobs.run(loader_tasks.job, SMALL, [small_cache], "error").warnings == []


def test_job_whose_list_cannot_be_meant_is_told_where_and_goes_on(
    jobs: Jobs, small_cache: Path, make_list: MakeList
) -> None:
    mine = make_list("sm_1O3a")
    warnings, report = jobs.run(loader_tasks.job_whose_start_is_heard, SMALL, small_cache, {_VARIABLE: str(mine)})
    (warning,) = warnings
    assert f"{mine}:3:105: `sm_1O3a` is no CUDA arch" in warning
    assert (report.stats["resolved"], report.missing, report.warnings) == (6, [], [])


def test_origin_says_what_was_allowed_and_nothing_where_nothing_was(small_cache: Path) -> None:
    found = origin(small_cache, records(small_cache)[0])
    assert (found.allowed, "allowed" in json.loads(found.render_file())) == ({}, False)
    assert Origin.parse_file("", found.render_file()) == found

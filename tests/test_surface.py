"""What two releases of the provider differ in, as `benchmarks/releases.py --newest` tells it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from surface import Change, Surface, changes, read_files, read_written, render, report

_SOURCE = """
def forward(dtype, causal):
    compile_key = (dtype, causal, get_level())
    if causal:
        compile_key += (1 + 1,)
    if compile_key not in forward.compile_cache:
        forward.compile_cache[compile_key] = cute.compile(Kernel())

def backward(dtype):
    key = dtype
    renamed_store[key] = _compile_backward(*key)

def reduce():
    cache = _get_cache()
    cache[()] = cute.compile[options](Kernel())

def counts(name):
    table[name] = 3
"""

_OLD = Surface(
    {"flash-attn-4": "1", "quack-kernels": "5"},
    ["__init__.py", "interface.py"],
    {"interface.py: forward.compile_cache": ["dtype", "causal"], "interface.py: gone.compile_cache": ["dtype"]},
    ["forward", "gone"],
    23,
    {"pass=bwd head_dim=512": "not supported"},
)


def test_reading_finds_what_is_kept_of_compiling_with_the_expressions_of_the_keys(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "interface.py").write_text(_SOURCE)
    (tmp_path / "notes.txt").write_text("")
    assert read_files(tmp_path) == ["deep/interface.py"]
    assert read_written(tmp_path) == {
        "deep/interface.py: forward.compile_cache": ["dtype", "causal", "get_level()", "1 + 1"],
        "deep/interface.py: renamed_store": ["dtype"],
        "deep/interface.py: cache": [],
    }


def test_changes_of_the_same_releases_are_none() -> None:
    assert changes(_OLD, replace(_OLD)) == []
    assert list(report(_OLD, _OLD))[-1] == "no file, slot, key, refusal or failure is new or gone"


def test_changes_name_what_is_new_and_what_is_gone_of_each_kind() -> None:
    new = Surface(
        {"flash-attn-4": "2", "quack-kernels": "5"},
        ["__init__.py", "config.py"],
        {"interface.py: forward.compile_cache": ["dtype", "window"], "interface.py: added.cache": ["dtype"]},
        ["forward", "added"],
        24,
        {"pass=bwd head_dim=512": "not supported", "pass=fwd head_dim=64": "no more"},
        ["pass=fwd head_dim=96: a TypeError"],
    )
    assert changes(_OLD, new) == [
        Change("file", ["config.py"], ["interface.py"]),
        Change("slot in the source", ["interface.py: added.cache"], ["interface.py: gone.compile_cache"]),
        Change("slot that is found", ["added"], ["gone"]),
        Change("key of interface.py: forward.compile_cache", ["window"], ["causal"]),
        Change("refusal", ["pass=fwd head_dim=64: no more"], []),
        Change("failure", ["pass=fwd head_dim=96: a TypeError"], []),
    ]


def test_refusal_with_another_reason_is_a_change() -> None:
    new = replace(_OLD, refused={"pass=bwd head_dim=512": "too large"})
    call = "pass=bwd head_dim=512"
    assert changes(_OLD, new) == [Change("refusal", [f"{call}: too large"], [f"{call}: not supported"])]


@pytest.mark.parametrize(("kernels", "words"), [(23, "23"), (30, "23 -> 30"), (None, "23 -> no plan")])
def test_report_says_how_many_kernels_there_were_and_are(kernels: int | None, words: str) -> None:
    lines = list(report(_OLD, replace(_OLD, kernels=kernels)))
    assert [line.split(maxsplit=4)[4] for line in lines if line.startswith("kernels")] == [words]


def test_report_says_versions_that_differ_as_such() -> None:
    lines = list(report(_OLD, replace(_OLD, versions={"flash-attn-4": "2", "nvidia-cutlass-dsl": "9"})))
    assert [line.split(maxsplit=1) for line in lines[:3]] == [
        ["flash-attn-4", "1 -> 2"],
        ["quack-kernels", "5 -> none"],
        ["nvidia-cutlass-dsl", "none -> 9"],
    ]


def test_rendered_comparison_is_json() -> None:
    rendered = json.loads(json.dumps(render(_OLD, replace(_OLD, found=["forward"]))))
    assert rendered["installed"]["kernels"] == 23
    assert rendered["changes"] == [{"what": "slot that is found", "new": [], "gone": ["gone"]}]

"""Keys that hold tensors: numbers are looked up by their value, and what can't be written down is compiled."""

from __future__ import annotations

from pathlib import Path

import pytest

import key_tasks
from jobs import Jobs

pytestmark = pytest.mark.compiles


def test_call_with_a_tensor_for_a_number_is_resolved_with_one_warning_that_names_the_argument(
    jobs: Jobs, small_cache: Path
) -> None:
    report = jobs.run(key_tasks.pass_tensors_to_flash_attention, small_cache, "num_threads", 384, 3)
    assert (report.stats["resolved"], report.stats["missed"], report.stats["compiled"]) == (1, {}, 0)
    (warning,) = report.warnings
    assert "`num_threads` of the call is a tensor that holds one number" in warning
    assert "key of slot `fwd`" in warning


def test_call_with_a_tensor_that_flash_attention_keeps_out_of_its_key_is_resolved_with_no_warning(
    jobs: Jobs, small_cache: Path
) -> None:
    report = jobs.run(key_tasks.pass_tensors_to_flash_attention, small_cache, "max_seqlen_q", 4096, 3)
    assert (report.stats["resolved"], report.stats["missed"], report.stats["compiled"]) == (1, {}, 0)
    assert report.warnings == []


def test_key_of_tensors_gets_the_function_of_the_plain_key_and_leaves_nothing_behind(
    jobs: Jobs, small_cache: Path
) -> None:
    lookups = jobs.run(key_tasks.look_up_by_tensors, small_cache, 3)
    assert lookups.found == [True] * 6
    assert lookups.size == 1
    assert len(lookups.warnings) == 1
    assert (lookups.stats.resolved, lookups.stats.missed, lookups.stats.compiled) == (1, {}, 0)


def test_what_is_compiled_for_a_key_of_tensors_is_found_by_every_key_of_the_same_numbers(
    jobs: Jobs, small_cache: Path
) -> None:
    lookups = jobs.run(key_tasks.compile_by_tensors, small_cache, 3)
    assert lookups.found == [True] * len(lookups.found)
    assert lookups.size == 1
    assert (lookups.stats.compiled, lookups.stats.missed) == (1, {"absent": 1})
    assert sorted("is a tensor" in warning for warning in lookups.warnings) == [False, True]


@pytest.mark.parametrize(
    "kind",
    [
        "object",
        "tensor",
        "unprintable",
    ],
)
def test_key_that_cannot_be_written_down_is_compiled_and_remembered_by_flash_attentions_rules(
    jobs: Jobs, small_cache: Path, kind: str
) -> None:
    lookups, _ = jobs.run(key_tasks.look_up_what_cannot_be_written_down, small_cache, "warn", kind)
    assert lookups.found == [True] * 4
    assert (lookups.stats.compiled, lookups.stats.missed) == (2, {"key": 2})
    assert "FlashAttention compiles it instead" in lookups.warnings[0]


@pytest.mark.parametrize("kind", ["object", "tensor"])
def test_key_that_cannot_be_written_down_is_warned_of_once(jobs: Jobs, small_cache: Path, kind: str) -> None:
    lookups, _ = jobs.run(key_tasks.look_up_what_cannot_be_written_down, small_cache, "warn", kind)
    assert len(lookups.warnings) == 1


@pytest.mark.parametrize(("kind", "type_name"), [("object", "builtins.object"), ("tensor", "torch.Tensor")])
def test_strict_job_is_told_of_a_key_that_cannot_be_written_down(
    jobs: Jobs, small_cache: Path, kind: str, type_name: str
) -> None:
    lookups, error = jobs.run(key_tasks.look_up_what_cannot_be_written_down, small_cache, "error", kind)
    assert error is not None
    assert (error.reason, lookups.stats.missed, lookups.size) == ("key", {"key": 1}, 0)
    assert f"key position `num_threads` holds a {type_name}, which can't be written down" in str(error)

"""Strict mode in real jobs: nothing is compiled, by whatever path."""

from __future__ import annotations

from pathlib import Path

import pytest

import strict_tasks
from jobs import Jobs

pytestmark = pytest.mark.compiles


def test_compile_beside_flash_attention_raises_names_the_function_and_shows_who_asked(
    jobs: Jobs, small_cache: Path
) -> None:
    raised, stats = jobs.run(strict_tasks.compile_beside_flash_attention, small_cache, "error")
    assert len(raised) == 3
    for error in raised:
        assert error is not None
        assert error.function == "strict_tasks._empty.<locals>.launch"
        assert "in compile_beside_flash_attention" in str(error)
        assert "strict_tasks.py" in error.stack[-1]
    assert (stats.refused, stats.compiled) == (3, 0)


def test_compile_beside_flash_attention_is_no_concern_of_a_job_that_may_compile(jobs: Jobs, small_cache: Path) -> None:
    raised, stats = jobs.run(strict_tasks.compile_beside_flash_attention, small_cache, "warn")
    assert raised == [None]
    assert (stats.refused, stats.compiled) == (0, 0)


def test_compile_after_uninstall_is_allowed_again(jobs: Jobs, small_cache: Path) -> None:
    in_strict_mode, afterwards = jobs.run(strict_tasks.compile_after_uninstall, small_cache)
    assert in_strict_mode is not None
    assert afterwards is None

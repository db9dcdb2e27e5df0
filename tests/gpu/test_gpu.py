"""On a Hopper or Blackwell GPU: kernels that were built without one, loaded in strict mode, and their numbers.

    pytest -m gpu                       # builds the kernels for this GPU first
    pytest -m gpu --kernels=DIR         # takes them from a cache that was built elsewhere

On a machine without such a GPU the tests are skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fa4_precompile
from fa4_precompile.precompile.spec.spec import read_spec, target_book
from fa4_precompile.providers.call import Call
from fa4_precompile.providers.fa4.variant import Variant, own
from fa4_precompile.providers.registry import DEFAULT
from gpu_cache import excluded_calls, gpu_marks, kernels_for

_HERE = Path(__file__).parent
_SPEC = _HERE / "kernels.yaml"
_TOLERANCE = 5e-3
_VARIANTS = read_spec(_SPEC, target_book()).variants


pytestmark = gpu_marks()


@pytest.fixture(scope="module")
def kernels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that has the suite's spec for this GPU."""
    return kernels_for(_SPEC, request, tmp_path_factory)


@pytest.fixture(scope="module")
def excluded(kernels: Path) -> dict[str, str]:
    """Why a call is not in the cache, by the call."""
    return excluded_calls(kernels)


@pytest.fixture(scope="module", autouse=True)
def strict(kernels: Path) -> Iterator[None]:
    """Nothing may be compiled in this process."""
    fa4_precompile.install(kernels, on_miss="error")
    yield
    fa4_precompile.uninstall()


@pytest.mark.parametrize("variant", _VARIANTS, ids=str)
def test_call_is_within_tolerance_of_float32(variant: Variant, excluded: dict[str, str]) -> None:
    reason = excluded.get(json.dumps(variant.render()))
    if reason:
        pytest.skip(f"FlashAttention does not take it: {reason}")
    outcome = DEFAULT.real_calls().make(Call(variant), 0)
    assert outcome.fault == ""
    assert len(outcome.errors) == (4 if own(variant).pass_ == "bwd" else 1)
    assert max(outcome.errors.values()) < _TOLERANCE


def test_everything_was_resolved_and_nothing_compiled() -> None:
    """Last of what is called above: the counts of this process."""
    stats = fa4_precompile.stats()
    print(stats)  # noqa: T201
    assert stats.resolved >= 1
    assert (stats.missed, stats.compiled, stats.refused) == ({}, 0, 0)


def _job(kernels: Path, *arguments: str, preload: str = "0", **options: object) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "FA4_PRECOMPILE_PRELOAD": preload,
        "FA4_PRECOMPILE_CACHE": str(kernels),
        "FA4_PRECOMPILE_ON_MISS": "error",
        "PYTHONPATH": os.pathsep.join([str(_HERE), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, str(_HERE / "gpu_job.py"), *arguments]
    return subprocess.Popen(  # type: ignore[no-any-return]
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    )


def test_preloaded_kernels_are_captured_in_a_cuda_graph_without_a_call_before(kernels: Path) -> None:
    report = _report_of(_job(kernels, "capture"))
    assert report["error"] < _TOLERANCE
    assert report["preloaded"] > 1
    assert report["compiled"] == 0


def _report_of(job: subprocess.Popen[str]) -> Any:
    out, err = job.communicate(timeout=300)
    assert job.returncode == 0, err
    return json.loads(out.splitlines()[-1])


@pytest.mark.parametrize("preload", ["0", "background"])
def test_first_call_of_a_process_is_captured_in_a_cuda_graph(kernels: Path, preload: str) -> None:
    """In the background also while the thread loads cubins: no capture of the process is spoilt."""
    report = _report_of(_job(kernels, "capture_first", preload=preload))
    assert report["error"] < _TOLERANCE
    assert (report["compiled"], report["missed"]) == (0, {})
    assert report["captured"] > 1
    assert (report["preloaded"] > 1) == (preload == "background")


def test_background_makes_no_context_and_has_all_kernels(kernels: Path) -> None:
    report = _report_of(_job(kernels, "step_in_the_background", preload="background"))
    assert report["after"] == report["before"]
    assert len(report["before"]) == 1
    assert report["preloaded"] > report["resolved"] > 1


def test_child_that_is_forked_beside_the_background_fares_as_one_without_it(kernels: Path) -> None:
    without = _report_of(_job(kernels, "fork"))
    beside = _report_of(_job(kernels, "fork", preload="background"))
    assert (without["waits"], beside["waits"]) == (False, True)
    assert beside["child"] == without["child"]


def test_eight_processes_at_once_resolve_everything_and_write_nothing(kernels: Path) -> None:
    """As a user that does not own the cache, where the tests run as root."""
    before = _tree(kernels)
    options: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    jobs = [_job(kernels, "step", **options) for _ in range(8)]
    for job in jobs:
        report = _report_of(job)
        assert report["resolved"] >= 4
        assert (report["compiled"], report["missed"]) == (0, {})
    assert _tree(kernels) == before


def _tree(folder: Path) -> dict[str, tuple[int, int, int, int]]:
    found = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.lstat()
        found[str(path)] = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode)
    return found

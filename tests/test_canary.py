"""`canary` as a command: with a stub of a driver, and fake calls of the toy library that end as a test says.

Its kernels are real, and resolved from the cache by a strict loader; none is launched.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cuda_stub import with_stub

from command_line import require_error
from fa4_precompile.cache.certificate import Certificate
from fa4_precompile.cache.listing import list_contents
from fa4_precompile.cache.store import Root
from product import Finished, records, run

pytestmark = pytest.mark.compiles

_SPEC = """
version: 1
provider: toy-kernels
targets: [b200]
kernels:
- {name: scales, op: scale, dtype: bf16, width: [256, 512, 768, 1024]}
- {name: sum, op: add, dtype: bf16, width: 256}
- {name: last, op: scale, dtype: bf16, width: 1280}
"""
_FATES = {"512": "crash", "768": "differ", "1024": "spoil", "1280": "hang"}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The environment of a machine with a B200, as far as its driver says."""
    folder = tmp_path_factory.mktemp("stub")
    toy = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent / "toy"), os.environ.get("PYTHONPATH", "")])}
    return {**with_stub(folder, folder / "notes"), **toy}


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spec of six kernels of the toy library."""
    path = tmp_path_factory.mktemp("toy") / "toy.yaml"
    path.write_text(_SPEC)
    return path


@pytest.fixture(scope="module")
def built(spec: Path, machine: Mapping[str, str]) -> Path:
    """A cache that has the spec. Tests that change it copy it first."""
    done = run("build", spec, "--cache", spec.parent / "kernels", environment={"PYTHONPATH": machine["PYTHONPATH"]})
    assert done.code == 0, done.err
    return spec.parent / "kernels"


@pytest.fixture(scope="module")
def tried(spec: Path, built: Path, machine: Mapping[str, str]) -> tuple[Path, Finished, dict[str, Any]]:
    """A sealed cache whose kernels were run, a call of each fate; what was said, and the file that was written."""
    cache, out = spec.parent / "tried", spec.parent / "out.json"
    shutil.copytree(built, cache)
    assert run("seal", "--cache", cache).code == 0
    arguments = ("--seed", "7", "--time-limit", "10", "--out", out)
    done = run("canary", spec, "--cache", cache, *arguments, environment={**machine, "FAKE_TOY": json.dumps(_FATES)})
    assert done.code == 1, done.err
    return cache, done, json.loads(out.read_text())


_Tried = tuple[Path, Finished, dict[str, Any]]


def _by_width(document: dict[str, Any], op: str = "scale") -> dict[int, dict[str, Any]]:
    return {one["variant"]["width"]: one for one in document["calls"] if one["variant"]["op"] == op}


@pytest.mark.long
def test_canary_goes_on_after_what_crashes_hangs_or_spoils_its_process(tried: _Tried) -> None:
    calls = _by_width(tried[2])
    assert {width: one["verdict"] for width, one in calls.items()} == {
        256: "compared",
        512: "failed",
        768: "failed",
        1024: "failed",
        1280: "failed",
    }
    assert calls[512]["words"] == "was killed by SIGKILL"
    assert "the last words" in calls[512]["report"]
    assert calls[1280]["words"] == "takes longer than the time limit of 10 s"
    assert "real.py" in calls[1280]["report"]  # where it hangs
    assert calls[1024]["words"] == "raises RuntimeError: an illegal access, seed 7, in call 2 of this process"
    assert "Traceback" in calls[1024]["report"]
    assert calls[768]["words"] == "y is off by 5.0e-01"
    assert calls[768]["errors"] == {"y": 0.5}
    assert _by_width(tried[2], "add")[256]["verdict"] == "ran"


def test_canary_makes_calls_in_one_process_until_one_spoils_it(tried: _Tried) -> None:
    # The fake tells how many calls its process has made, in the place of the time.
    calls, sums = _by_width(tried[2]), _by_width(tried[2], "add")
    assert (calls[256]["seconds"], calls[768]["seconds"], sums[256]["seconds"]) == (1.0, 1.0, 1.0)
    assert calls[1024]["words"].endswith("in call 2 of this process")


def test_canary_certifies_the_kernels_that_were_resolved_beside_the_seal(tried: _Tried) -> None:
    cache, _, document = tried
    certificates = {one.kernel: one for one in Root(cache).certificates() if isinstance(one, Certificate)}
    assert certificates.keys() == {record.id for record in records(cache)}
    for one in document["calls"]:
        [kernel] = one["kernels"]
        assert certificates[kernel].verdict == one["verdict"]
        assert one["taken"] in ([], [kernel])
    good = certificates[_by_width(document)[256]["kernels"][0]]
    assert (good.error, good.tolerance, good.where.device, good.where.sms) == (1e-3, 5e-3, "a stub", 148)
    assert good.render() in document["certificates"]
    assert document["fingerprint"] == list_contents(Root(cache)).fingerprint


def test_canary_says_each_call_and_what_it_comes_to(tried: _Tried) -> None:
    done = tried[1]
    lines = done.out.splitlines()
    assert lines[0].split()[:5] == ["compared", "y", "1.0e-03", "of", "5e-03"]
    assert sum(line.startswith("FAILED") for line in lines) == 4
    assert "a stub (sm_100a, 148 SMs, driver" in done.err
    assert "6 calls, 6 kernels, 1 compared (largest error 1.0e-03), 1 ran, not compared, 4 failed" in done.err


def test_canary_of_a_cache_that_can_not_be_written_keeps_all_in_the_file(
    spec: Path, built: Path, machine: Mapping[str, str], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(built, cache)
    (cache / "certificates").write_text("no folder, also for root")
    out = tmp_path / "out.json"
    done = run("canary", spec, "--cache", cache, "--sample", "1", "--out", out, "--json", environment=machine)
    assert done.code == 0, done.err
    assert "no certificates are kept in the cache" in done.err
    assert f"they are in `{out}` only" in done.err
    assert "5 calls not made" in done.err
    document = json.loads(done.out)
    assert document == json.loads(out.read_text())
    assert (len(document["calls"]), len(document["certificates"]), document["left"]) == (1, 1, 5)
    taken = run("canary", "--take", out, "--cache", built)  # where it was built, on a machine with no GPU
    assert (taken.code, taken.out) == (0, f"{out}: a stub (sm_100a), 1 certificate: 1 kept\n")
    (shown,) = [
        one["certificates"] for one in json.loads(run("ls", "--json", "--cache", built).out) if "certificates" in one
    ]
    assert shown == document["certificates"]
    shutil.rmtree(built / "certificates")


def test_canary_where_there_is_no_gpu_ends_with_three(built: Path, spec: Path, machine: Mapping[str, str]) -> None:
    toy = {"PYTHONPATH": machine["PYTHONPATH"]}
    error = require_error(run("canary", spec, "--cache", built, environment=toy), 3)
    assert "no NVIDIA GPU is visible here, and kernels run nowhere else" in error
    assert "no NVIDIA GPU" in require_error(
        run("canary", spec, "--cache", built, environment={**toy, "CUTE_DSL_ARCH": "sm_100a"}), 3
    )


def test_canary_of_builds_for_another_device_says_which_there_are(
    spec: Path, built: Path, machine: Mapping[str, str]
) -> None:
    other = spec.parent / "another.yaml"
    other.write_text(_SPEC.replace("width: 256}", "width: 2048}"))
    error = require_error(run("canary", other, "--cache", built, environment=machine), 3)
    assert f"has no kernel of a build of {other} for a stub (sm_100a, 148 SMs), but for b200 (sm_100a)" in error


def test_canary_of_flash_attention_with_a_torch_that_has_no_cuda_ends_with_three(
    small_cache: Path, machine: Mapping[str, str]
) -> None:
    error = require_error(run("canary", "--cache", small_cache, environment=machine), 3)
    assert "sees no GPU here (its CUDA: none)" in error
    assert "install a torch for the CUDA" in error

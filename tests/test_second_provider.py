"""A second kernel library: registered by one line, and planned, built and served as the first.

In `tests/toy`, `toy_kernels` is the library, `toy_provider` is what is known of it, and the `dist-info` registers it as
that of an installed distribution would. Only processes that have the folder on their path know of it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fa4_precompile.cache.listing import list_contents
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.toolchain import Toolchain
from product import Finished, origin, records, run

pytestmark = pytest.mark.compiles

_HEAD = """
version: 1
provider: toy-kernels
targets: [b200]
kernels:
"""
_SPEC = f"""{_HEAD}
- {{name: both, op: [scale, add], dtype: bf16, width: 1024}}
- {{name: wide, op: scale, dtype: fp32, width: 512, tile: [[128, 8], [64, 4]]}}
- {{name: widths, op: add, dtype: fp32, width: [256, 30]}}
"""

_FOLDERS = [str(Path(__file__).parent / "toy"), os.environ.get("PYTHONPATH", "")]
_TOY = {"PYTHONPATH": os.pathsep.join(filter(None, _FOLDERS))}

_STRICT = {
    **_TOY,
    "CUTE_DSL_ARCH": "sm_100a",
    "FA4_PRECOMPILE_MODULE": "toy_kernels",
    "FA4_PRECOMPILE_ON_MISS": "error",
    "TOY_SMS": "148",
}

# Makes each call of its argument, `[OP, DTYPE, WIDTH]`, and prints the fields of its error, or null.
_JOB = """
import json, sys
import torch
import toy_kernels
from dataclasses import asdict
from torch._subclasses.fake_tensor import FakeTensorMode
import fa4_precompile

def call(op, dtype, width):
    x = torch.empty(4096, width, dtype=getattr(torch, dtype), device="cuda")
    try:
        toy_kernels.scale(x, 0.5) if op == "scale" else toy_kernels.add(x, x)
    except fa4_precompile.KernelMissing as error:
        return {**vars(error), "hint": error.hint}

with FakeTensorMode():
    missing = [call(*arguments) for arguments in json.loads(sys.argv[1])]
print(json.dumps({"missing": missing, "stats": asdict(fa4_precompile.stats())}))
"""


@dataclass(frozen=True)
class _Job:
    """What a job printed: the fields of each call's error, None for a call that was served; and the loader's counts."""

    missing: Sequence[Mapping[str, Any] | None]
    stats: Mapping[str, Any]


def _run_job(cache: Path, calls: Sequence[tuple[str, str, int]], **environment: str) -> _Job:
    settings = {**os.environ, **_STRICT, "FA4_PRECOMPILE_CACHE": str(cache), **environment}
    command = [sys.executable, "-c", _JOB, json.dumps(calls)]
    job = subprocess.run(command, env=settings, capture_output=True, text=True, check=False, timeout=300)
    assert job.returncode == 0, job.stderr
    return _Job(**json.loads(job.stdout.splitlines()[-1]))


def _run(*arguments: object) -> Finished:
    return run(*arguments, environment=_TOY)


def _plan(spec: Path) -> dict[str, Any]:
    done = _run("plan", spec, "--json")
    assert done.code == 0, done.err
    plan: dict[str, Any] = json.loads(done.out)
    return plan


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spec of four kernels, and of two calls that come to none."""
    path = tmp_path_factory.mktemp("toy") / "toy.yaml"
    path.write_text(_SPEC)
    return path


@pytest.fixture(scope="module")
def built(spec: Path) -> Finished:
    """The spec's first build, into the folder `kernels` beside it."""
    return _run("build", spec, "--cache", spec.parent / "kernels", "--json")


@pytest.fixture(scope="module")
def cache(spec: Path, built: Finished) -> Path:
    """A cache that holds the spec. Tests that change it copy it first."""
    assert built.code == 0, built.err
    return spec.parent / "kernels"


@pytest.fixture(scope="module")
def job(cache: Path) -> _Job:
    """A strict job of three calls that the cache has kernels for, and of one that finds its kernel with a switch."""
    calls = [("scale", "bfloat16", 1024), ("add", "bfloat16", 1024), ("scale", "bfloat16", 1024)]
    return _run_job(cache, [*calls, ("scale", "float32", 512)])


def test_plan_asks_the_library_for_its_keys(spec: Path) -> None:
    plan = _plan(spec)
    assert plan["broken"] == []
    assert [(kernel["slot"], kernel["key"], kernel["runtime_env"]) for kernel in plan["kernels"]] == [
        ("scale", "(class14:torch.bfloat16,i1024,(i128,i4))", {}),
        ("add", "(class14:torch.bfloat16,i1024,(i128,i4))", {}),
        ("add", "(class13:torch.float32,i256,(i128,i4))", {}),
        # What no call without the switch looks up: the demand is met by it.
        ("scale", "(class13:torch.float32,i512,(i128,i8))", {"TOY_WIDE": "1"}),
    ]
    excluded = {json.dumps(item["variant"]): item["reason"] for item in plan["excluded"]}
    refused = '{"op": "add", "dtype": "fp32", "width": 30}'
    unmet = '{"op": "scale", "dtype": "fp32", "width": 512, "tile": [64, 4]}'
    assert excluded.keys() == {refused, unmet}
    assert excluded[refused] == "a width of 30 is not a multiple of the 4 values that a thread handles"
    assert excluded[unmet].startswith("demands tile 64x4; ")


def test_build_makes_every_kernel_once(spec: Path, built: Finished, cache: Path) -> None:
    first = json.loads(built.out)
    assert (first["kernels"], first["built"], len(first["excluded"]), first["failed"]) == (4, 4, 2, [])
    second = json.loads(_run("build", spec, "--cache", cache, "--json").out)
    assert (second["kernels"], second["built"], second["cached"]) == (4, 0, 4)


def test_host_code_runs_on_any_processor_of_its_kind(cache: Path) -> None:
    # The DSL would make it for the one that it runs on. What begins with a `v` is of AVX, as all that was added later.
    for blob in (path for path in cache.glob("blobs/sha256/*/*") if path.stat().st_size < 10_000_000):
        code = subprocess.run(["objdump", "-d", "--no-show-raw-insn", blob], capture_output=True, text=True, check=True)
        instructions = [line.split("\t")[1].split()[0] for line in code.stdout.splitlines() if line.count("\t") == 1]
        assert len(instructions) > 100
        assert not [name for name in instructions if name.startswith("v")]


@pytest.mark.long
def test_shards_that_are_merged_are_the_cache_of_the_whole_build(spec: Path, cache: Path, tmp_path: Path) -> None:
    parts = [tmp_path / "first", tmp_path / "second"]
    compiled = json.loads(_run("build", spec, "--cache", parts[0], "--shard", "1/2", "--json").out)
    taken = json.loads(_run("build", spec, "--cache", parts[1], "--shard", "2/2", "--from", cache, "--json").out)
    assert (compiled["kernels"], compiled["built"] + compiled["left"]) == (4, 4)
    assert (taken["built"], taken["taken"], taken["left"]) == (0, compiled["left"], compiled["built"])
    merged = _run("merge", tmp_path / "merged", *reversed(parts))
    assert (merged.code, merged.out) == (0, "toy for b200: 4 kernels, complete\n"), merged.err
    assert list_contents(Root(tmp_path / "merged")).fingerprint == list_contents(Root(cache)).fingerprint


def test_built_cache_is_whole_and_is_all_of_the_spec(spec: Path, cache: Path) -> None:
    whole, all_of_it = _run("verify", "--cache", cache), _run("check", spec, "--cache", cache)
    assert (whole.code, all_of_it.code) == (0, 0), whole.out + all_of_it.out


def test_records_speak_of_the_library_in_its_own_words(cache: Path) -> None:
    listed = json.loads(_run("ls", "--cache", cache, "--json").out)
    found = {(one["slot"], one["variant"]["width"]): one for one in listed}
    assert found.keys() == {("scale", 1024), ("scale", 512), ("add", 1024), ("add", 256)}
    # The number of SMs is in the kernel that asked for it while it was traced, and in no other.
    assert {one["slot"]: one["facts"] for one in listed} == {"scale": {}, "add": {"sms": 148}}
    wide = found["scale", 512]
    assert wide["key_fields"] == {"dtype": "torch.float32", "width": 512, "tile": [128, 8]}
    assert (wide["selection"]["kernel_class"], wide["selection"]["tiles"]) == ("Scale", {"main": [128, 8]})
    assert wide["runtime_env"] == {"TOY_WIDE": "1"}
    (toolchain,) = Root(cache).toolchains()
    assert isinstance(toolchain, Toolchain)
    assert (toolchain.provider, toolchain.provider_version, dict(toolchain.traced_libraries)) == (
        "toy-kernels",
        "0.1",
        {},
    )


def test_job_takes_all_kernels_from_the_cache(job: _Job) -> None:
    assert job.missing[:3] == [None, None, None]
    assert (job.stats["resolved"], job.stats["compiled"], job.stats["refused"]) == (2, 0, 0)


def test_kernel_missing_says_the_switch_that_finds_it(job: _Job) -> None:
    missing = job.missing[3]
    assert missing is not None
    assert (missing["reason"], missing["missing_env"]) == ("environment", {"TOY_WIDE": "1"})
    assert missing["hint"] == "set in the job: TOY_WIDE=1"


@pytest.mark.long
def test_kernel_missing_says_the_spec_lines_that_add_it(cache: Path, tmp_path: Path) -> None:
    served, absent = _run_job(cache, [("scale", "float32", 512), ("scale", "float32", 2048)], TOY_WIDE="1").missing
    assert served is None
    assert absent is not None
    assert (absent["slot"], absent["reason"]) == ("scale", "absent")
    assert absent["key_fields"] == {"dtype": "torch.float32", "width": 2048, "tile": [128, 8]}
    more = tmp_path / "more.yaml"
    more.write_text(_HEAD + absent["spec_lines"])
    (kernel,) = _plan(more)["kernels"]
    assert (kernel["slot"], kernel["key"]) == ("scale", "(class13:torch.float32,i2048,(i128,i8))")
    assert kernel["runtime_env"] == {"TOY_WIDE": "1"}


@pytest.mark.long
def test_job_stores_what_it_compiles(cache: Path, tmp_path: Path) -> None:
    copy = tmp_path / "kernels"
    shutil.copytree(cache, copy)
    before = {record.id for record in records(copy)}
    job = _run_job(copy, [("scale", "float16", 128)], FA4_PRECOMPILE_ON_MISS="store")
    assert (job.stats["compiled"], job.stats["stored"]) == (1, 1)
    (stored,) = [record for record in records(copy) if record.id not in before]
    assert (stored.slot, origin(copy, stored).variant) == ("scale", {"op": "scale", "dtype": "fp16", "width": 128})


@pytest.fixture
def altered(tmp_path: Path, spec: Path) -> Callable[[str], Finished]:
    """Plan the spec with a library whose `scale` finds its kernels otherwise."""

    def plan(lookup: str) -> Finished:
        shutil.copytree(_FOLDERS[0], tmp_path / "toy")
        module = tmp_path / "toy" / "toy_kernels" / "scaling.py"
        usual = "    if key not in kernels:\n        kernels[key] ="
        assert usual in module.read_text()
        module.write_text(module.read_text().replace(usual, lookup))
        return run("plan", spec, "--json", environment={"PYTHONPATH": str(tmp_path / "toy")})

    return plan


@pytest.mark.long
def test_library_that_gets_its_kernels_is_asked_as_one_that_looks_whether_they_are_there(
    spec: Path, altered: Callable[[str], Finished]
) -> None:
    done = altered("    if kernels.get(key) is None:\n        kernels[key] =")
    assert done.code == 0, done.err
    assert json.loads(done.out) == _plan(spec)


@pytest.mark.long
def test_library_that_looks_up_nothing_is_a_failure_and_no_empty_plan(altered: Callable[[str], Finished]) -> None:
    done = altered("    if True:\n        globals()['another'] =")
    assert done.code == 1
    broken = {item["variant"]["op"]: item["error"] for item in json.loads(done.out)["broken"]}
    assert broken == {"scale": "the call looks up no kernel in any of 2 slots"}


@pytest.mark.parametrize(("on_miss", "code"), [("warn", 0), ("error", 1)])
def test_provider_that_fails_in_a_jobs_import_does_not_reach_a_job_that_is_not_strict(
    cache: Path, tmp_path: Path, on_miss: str, code: int
) -> None:
    shutil.copytree(_FOLDERS[0], tmp_path / "toy")
    module = tmp_path / "toy" / "toy_provider" / "provider.py"
    module.write_text(module.read_text().replace("SLOTS.get(module.__name__)", "SLOTS.nowhere"))
    settings = {**os.environ, **_STRICT, "PYTHONPATH": str(tmp_path / "toy"), "FA4_PRECOMPILE_CACHE": str(cache)}
    program = [sys.executable, "-c", "import torch, toy_kernels; print('imported')"]
    job = subprocess.run(
        program, env=settings | {"FA4_PRECOMPILE_ON_MISS": on_miss}, capture_output=True, text=True, check=False
    )
    assert job.returncode == code, job.stderr
    assert ("imported" in job.stdout) == (code == 0)
    assert "no attribute 'nowhere'" in job.stderr


def test_axis_of_another_provider_is_refused_where_it_stands(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(f"{_HEAD}- {{name: a, op: add, dtype: bf16, head_dim: 64}}\n")
    done = _run("plan", wrong)
    assert done.code == 2
    assert f"{wrong}:6:35: unknown key `head_dim`" in done.err
    assert "allowed: dtype, name, op, tile, width" in done.err


def test_unknown_provider_is_told_of_all_that_there_are(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(_HEAD.replace("toy-kernels", "toys"))
    assert "allowed: flash-attn-4, toy-kernels" in _run("plan", wrong).err
    assert "allowed: flash-attn-4\n" in run("plan", wrong).err


# Recording


@pytest.mark.long
def test_job_is_recorded_and_its_spec_reaches_what_it_looked_up(built: Finished, spec: Path, tmp_path: Path) -> None:
    assert built.code == 0, built.err
    calls = [("scale", "bfloat16", 1024), ("add", "bfloat16", 1024), ("add", "float32", 256)]
    _run_job(spec.parent / "kernels", calls, FA4_PRECOMPILE_RECORD=str(tmp_path / "record"))
    done = _run("spec", "from-record", tmp_path / "record")
    assert done.code == 0, done.err
    assert done.err.rstrip().endswith("recorded kernels and none more")
    assert "provider: toy-kernels" in done.out
    (tmp_path / "toy.yaml").write_text(done.out)
    assert _run("spec", "diff", tmp_path / "toy.yaml", tmp_path / "record").code == 0

"""A package of FlashAttention's lineage as people have them, planned, built and served.

`tests/wild/wild_attn` is made up; its kernels compile in a second. What it has is what such packages have: entry points
that are all private, masks of a class of its own, compile caches under names of its own, several to a function, one
beside the package.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from product import Finished, origin, records, run

pytestmark = pytest.mark.compiles

_SPEC = """
version: 1
provider: {name: flash-attn-4, module: wild_attn.cute}
targets: [b200]
callers: {step: "wild_calls:step", dense: "wild_calls:dense"}
kernels:
- name: masked
  caller: step
  pass: bwd
  dtype: bf16
  head_dim: 64
  shape: {batch: [1, 2]}
  arguments: {n_func: [1, 3]}
- {name: dense, caller: dense, pass: fwd, dtype: bf16, head_dim: [64, 256]}
"""

_FOLDERS = [str(Path(__file__).parent / "wild"), os.environ.get("PYTHONPATH", "")]
_PATH = {"PYTHONPATH": os.pathsep.join(filter(None, _FOLDERS))}

_STRICT = {
    **_PATH,
    "CUTE_DSL_ARCH": "sm_100a",
    "FLASH_ATTENTION_NUM_SMS": "148",
    "FA4_PRECOMPILE_MODULE": "wild_attn.cute",
    "FA4_PRECOMPILE_ON_MISS": "error",
}

# What a job of the package's does before the calls of its argument, and the numbers that it prints after them.
_JOB = """
import json
import torch
from types import SimpleNamespace
from torch._subclasses.fake_tensor import FakeTensorMode
import wild_calls
from wild_attn.cute import interface
import fa4_precompile

def empty(*size, dtype="bfloat16"):
    return torch.empty(*size, dtype=getattr(torch, dtype), device="cuda")

def tensors(head_dim):
    q, k, v = (empty(1, 4096, 8, head_dim) for _ in range(3))
    return SimpleNamespace(q=q, k=k, v=v, empty=empty)

with FakeTensorMode():
    CALLS
stats = fa4_precompile.stats()
print(json.dumps([stats.resolved, stats.compiled, stats.missed]))
"""


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spec of six kernels in four slots, and of two calls that the package refuses."""
    path = tmp_path_factory.mktemp("wild") / "wild.yaml"
    path.write_text(_SPEC)
    return path


@pytest.fixture(scope="module")
def cache(spec: Path) -> Path:
    """A cache that holds the spec."""
    built = run("build", spec, "--cache", spec.parent / "kernels", environment=_PATH)
    assert built.code == 0, built.err
    return spec.parent / "kernels"


def _run_job(cache: Path, calls: str, **changes: str) -> Finished:
    command = [sys.executable, "-c", _JOB.replace("CALLS", calls)]
    settings = {**os.environ, **_STRICT, "FA4_PRECOMPILE_CACHE": str(cache), **changes}
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False, timeout=300)
    return Finished(done.returncode, done.stdout, done.stderr)


def _printed(job: Finished) -> Any:
    assert job.code == 0, job.err
    return json.loads(job.out.splitlines()[-1])


def test_plan_has_what_each_caller_looks_up_in_every_slot_and_the_packages_own_refusals(spec: Path) -> None:
    done = run("plan", spec, "--json", environment=_PATH)
    assert done.code == 0, done.err
    plan = json.loads(done.out)
    assert [(kernel["slot"], kernel["key"]) for kernel in plan["kernels"]] == [
        ("flash_attn_fwd.kernels_by_key", "(class14:torch.bfloat16,i64,i64,i1,(i256,i128))"),
        ("flash_attn_bwd", "(class14:torch.bfloat16,i64,i1,(i128,i128))"),
        ("flash_attn_fwd.kernels_by_key", "(class14:torch.bfloat16,i64,i64,i3,(i256,i128))"),
        ("flash_attn_bwd", "(class14:torch.bfloat16,i64,i3,(i128,i128))"),
        ("flash_attn_fwd.dense_by_key", "(class14:torch.bfloat16,i64)"),
        ("cache", "(class14:torch.bfloat16,i256)"),
    ]
    reasons = {item["reason"] for item in plan["excluded"]}
    assert reasons == {"an arbitrary mask is that of one sequence, not of 2"}
    assert [item["variant"]["arguments"] for item in plan["excluded"]] == [{"n_func": 1}, {"n_func": 3}]


def test_records_name_caller_arguments_and_key_in_the_packages_words(cache: Path) -> None:
    found = {(one.slot, json.dumps(origin(cache, one).variant.get("arguments"))): one for one in records(cache)}
    assert len(found) == 6
    masked = found["flash_attn_bwd", '{"n_func": 3}']
    assert origin(cache, masked).variant["caller"] == "wild_calls:step"
    assert masked.key_fields == {
        "q.dtype": "torch.bfloat16",
        "head_dim": 64,
        "functions.shape[2]": 3,
        "blocks.block_size": [128, 128],
    }


def test_strict_job_takes_every_kernel_from_the_cache(cache: Path) -> None:
    job = _run_job(
        cache,
        "for _ in range(2):\n"
        "        for n_func in (1, 3):\n"
        "            wild_calls.step(interface, tensors(64), pass_='bwd', seqlen_q=4096, n_func=n_func)\n"
        "        for head_dim in (64, 256):\n"
        "            wild_calls.dense(interface, tensors(head_dim), head_dim=head_dim)",
    )
    assert _printed(job) == [6, 0, {}]


_WRONG_CALLS = """
    wild_calls.step(interface, tensors(64), pass_='bwd', seqlen_q=4096, n_func=3)
    wild_calls.dense(interface, tensors(64), head_dim=64)
    wild_calls.dense(interface, tensors(256), head_dim=256)

def said(slot, *arguments, **by_name):
    (function,) = dict.values(slot)
    try:
        function(*arguments, **by_name)
    except TypeError as error:
        return str(error)

import tvm_ffi
import wild_attn.wide
fwd, bwd = interface._flash_attn_fwd.kernels_by_key, interface._flash_attn_bwd.kernels_by_key
dense = interface._flash_attn_fwd.dense_by_key
named = fwd, bwd, wild_attn.wide._cache()
print(json.dumps({
    "types": [said(slot, out=2, x=1, scale=3.0, functions=5, blocks=None) for slot in named],
    "mixed": said(bwd, 1, 2, 3.0, functions=5, blocks=None),
    "unknown": said(fwd, y=1),
    "left out": said(fwd, x=1, out=2, scale=3.0),
    "plain": type(next(iter(dict.values(dense)))) is tvm_ffi.Function,
}))
raise SystemExit
"""


def test_kernel_that_the_package_launches_by_name_takes_its_arguments_by_name(cache: Path) -> None:
    said = _printed(_run_job(cache, _WRONG_CALLS.strip()))
    for message in [*said["types"], said["mixed"]]:  # the kernel's own, with its whole signature
        assert message.startswith("Mismatched type on argument #0 when calling: `__call__(x: Tensor([n0, ")
    assert "unexpected keyword argument 'y'" in said["unknown"]
    assert "missing 2 required positional arguments: 'blocks' and 'functions'" in said["left out"]
    assert said["plain"], "a kernel that is launched by position is what it is without us"


def test_record_has_names_where_the_package_launches_by_name_and_nowhere_else(cache: Path) -> None:
    named = {record.slot: list(record.keywords) for record in records(cache)}
    names = ["x", "out", "scale", "blocks", "functions"]
    assert named == {
        "flash_attn_fwd.kernels_by_key": names,
        "flash_attn_bwd": names,
        "cache": names,
        "flash_attn_fwd.dense_by_key": [],
    }
    files = [path.read_text() for path in cache.glob("records/*/*/*.json")]
    assert sorted('"keywords"' in text for text in files) == [False, *[True] * 5]


def test_kernel_that_is_missing_beside_the_package_is_refused_too(cache: Path) -> None:
    job = _run_job(cache, "wild_calls.dense(interface, tensors(512), head_dim=512)")
    assert job.code == 1
    assert "KernelMissing: no kernel for a call of slot `cache` (absent)" in job.err
    assert "head_dim 256 -> 512" in job.err


@pytest.mark.long
def test_job_stores_what_the_next_one_launches_by_name(tmp_path: Path) -> None:
    call = "wild_calls.dense(interface, tensors(512), head_dim=512)"
    assert _printed(_run_job(tmp_path, call, FA4_PRECOMPILE_ON_MISS="store"))[:2] == [0, 1]
    (stored,) = records(tmp_path)
    assert stored.keywords == dict.fromkeys(["x", "out", "scale", "blocks", "functions"], True)
    assert _printed(_run_job(tmp_path, call)) == [1, 0, {}]

"""A package of FlashAttention-4's lineage under another module name: planned, built, and served by the loader."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fa4_copies import copy_as_module

from product import records, run

pytestmark = pytest.mark.compiles

_SPEC = """
version: 1
provider: {name: flash-attn-4, module: flash_attn_cute}
targets: [b200]
kernels:
- {name: a, pass: fwd, dtype: bf16, head_dim: 64, causal: true}
"""

_JOB = """
import json
import torch
from dataclasses import asdict
from torch._subclasses.fake_tensor import FakeTensorMode
from flash_attn_cute.interface import flash_attn_func
import fa4_precompile
with FakeTensorMode():
    q, k, v = (torch.empty(2, 4096, 2, 64, dtype=torch.bfloat16, device="cuda") for _ in range(3))
    flash_attn_func(q, k, v, causal=True)
print(json.dumps(asdict(fa4_precompile.stats())))
"""


@pytest.fixture(scope="module")
def lineage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed package under another name."""
    return copy_as_module(tmp_path_factory.mktemp("lineage"), "flash_attn_cute")


def test_package_under_another_name_is_built_and_served(lineage: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(_SPEC)
    path = {"PYTHONPATH": os.pathsep.join([str(lineage), os.environ.get("PYTHONPATH", "")])}
    built = run("build", spec, "--cache", tmp_path / "kernels", environment=path)
    assert built.code == 0, built.err
    (record,) = records(tmp_path / "kernels")
    assert record.slot == "fwd"
    environment = {
        **path,
        "CUTE_DSL_ARCH": "sm_100a",
        "FLASH_ATTENTION_ARCH": "sm_100",
        "FLASH_ATTENTION_NUM_SMS": "148",
        "FA4_PRECOMPILE_CACHE": str(tmp_path / "kernels"),
        "FA4_PRECOMPILE_MODULE": "flash_attn_cute",
        "FA4_PRECOMPILE_ON_MISS": "error",
    }
    job = subprocess.run(
        [sys.executable, "-c", _JOB], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert job.returncode == 0, job.stderr
    stats = json.loads(job.stdout.splitlines()[-1])
    assert (stats["resolved"], stats["compiled"], stats["missed"]) == (1, 0, {})


@pytest.mark.long
def test_package_under_another_name_looks_up_the_same_keys(lineage: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(_SPEC)
    path = {"PYTHONPATH": os.pathsep.join([str(lineage), os.environ.get("PYTHONPATH", "")])}
    own = run("plan", spec, "--json", environment=path)
    spec.write_text(_SPEC.replace("{name: flash-attn-4, module: flash_attn_cute}", "flash-attn-4"))
    other = run("plan", spec, "--json", environment=path)
    assert own.code == other.code == 0, own.err + other.err
    assert [kernel["key"] for kernel in json.loads(own.out)["kernels"]] == [
        kernel["key"] for kernel in json.loads(other.out)["kernels"]
    ]


_UNFINDABLE = """

class Engine:
    def run(self, key):
        self.kernels[key] = cute.compile(key)
"""


def test_package_that_keeps_kernels_where_nobody_finds_them_is_refused_by_file_line_and_expression(
    lineage: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "site"
    shutil.copytree(lineage, copy)
    path = copy / "flash_attn_cute" / "interface.py"
    path.write_text(path.read_text(encoding="utf-8") + _UNFINDABLE, encoding="utf-8")
    line = len(path.read_text(encoding="utf-8").splitlines())
    done = _plan(copy, tmp_path)
    assert done.code == 3
    assert f"can't be found: interface.py:{line}: `self.kernels[key]`" in done.err


_LOOKUP = "    if compile_key not in _flash_attn_fwd.compile_cache:\n"
_REFUSAL = "        assert seqlen_k % 256 == 0, f'keys of whole pages, got {seqlen_k}'\n"


def _that_refuses(lineage: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "site"
    shutil.copytree(lineage, copy)
    path = copy / "flash_attn_cute" / "interface.py"
    text = path.read_text(encoding="utf-8")
    assert text.count(_LOOKUP) == 1
    path.write_text(text.replace(_LOOKUP, _LOOKUP + _REFUSAL), encoding="utf-8")
    return copy


@pytest.mark.long
@pytest.mark.parametrize("order", [(4000, 4096), (4096, 4000)], ids=str)
def test_length_that_is_refused_where_the_package_would_compile_says_nothing_of_others(
    lineage: Path, tmp_path: Path, order: tuple[int, int]
) -> None:
    """Both lengths look up the same key, of which only one is taken."""
    copy = _that_refuses(lineage, tmp_path)
    spec = tmp_path / "spec.yaml"
    sizes = ", ".join(f"{{seqlen_k: {length}}}" for length in order)
    spec.write_text(_SPEC.replace("causal: true", f"shape: [{sizes}]"))
    done = run("plan", spec, "--json", environment={"PYTHONPATH": str(copy)})
    assert done.code == 0, done.err
    plan = json.loads(done.out)
    assert len(plan["kernels"]) == 1
    (excluded,) = plan["excluded"]
    assert "keys of whole pages, got 4000" in excluded["reason"]


@pytest.mark.long
def test_closure_finds_all_that_is_taken_at_few_lengths_and_plans_none_that_is_refused(
    lineage: Path, tmp_path: Path
) -> None:
    spec, copy = tmp_path / "spec.yaml", _that_refuses(lineage, tmp_path)
    listed = [
        f"{{batch: {batch}, seqlen_q: {rows}, seqlen_k: {keys}}}"
        for batch, rows, keys in itertools.product((1, 2), (1, 100, 4096), (256, 1024, 8192))
    ]
    shapes = (
        "shapes: closure, shape: {batch: 1..2, seqlen_q: 1..4096, seqlen_k: 1..8192}",
        f"shape: [{', '.join(listed)}]",
    )
    plans = []
    for shape in shapes:
        spec.write_text(_SPEC.replace("causal: true", f"num_splits: 0, {shape}"))
        done = run("plan", spec, "--json", environment={"PYTHONPATH": str(copy)})
        assert done.code == 0, done.err
        plans.append(json.loads(done.out))
    closed, some = ({(one["slot"], one["key"]) for one in plan["kernels"]} for plan in plans)
    assert len(some) > 2
    assert some <= closed
    lengths = {call["variant"].get("shape", {}).get("seqlen_k", 4096) for call in plans[0]["calls"]}
    assert {length % 256 for length in lengths} == {0}


def test_package_without_a_compile_cache_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "site" / "flash_attn_cute"
    folder.mkdir(parents=True)
    for name in ("__init__", "interface", "block_sparsity"):
        (folder / f"{name}.py").write_text("")
    done = _plan(folder.parent, tmp_path)
    assert done.code == 3
    assert "(`flash_attn_cute`) has no compile cache" in done.err


def test_package_whose_module_with_a_compile_cache_can_not_be_imported_is_refused(
    lineage: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "site"
    shutil.copytree(lineage, copy)
    path = copy / "flash_attn_cute" / "compute_block_sparsity.py"
    path.write_text("import not_there_at_all\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    done = _plan(copy, tmp_path)
    assert done.code == 3
    assert "`flash_attn_cute.compute_block_sparsity` has compile caches and can't be imported here" in done.err
    assert "not_there_at_all" in done.err


@pytest.mark.long
def test_package_without_a_module_that_a_call_needs_refuses_that_call_and_no_other(
    lineage: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "site"
    shutil.copytree(lineage, copy)
    (copy / "flash_attn_cute" / "compute_block_sparsity.py").unlink()
    other = _plan(copy, tmp_path)
    assert other.code == 0, other.err
    done = _plan(copy, tmp_path, _COMPUTED)
    assert done.code == 2
    assert "entry `c` has nothing to build: `flash_attn_cute` has no module `compute_block_sparsity`" in done.err


_STRICT_JOB = """
import flash_attn_cute.interface
import fa4_precompile
print(type(flash_attn_cute.interface._flash_attn_fwd.compile_cache).__name__)
"""


@pytest.mark.long
def test_strict_job_says_at_its_start_which_caches_nobody_answers_for(
    lineage: Path, small_cache: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "site"
    shutil.copytree(lineage, copy)
    path = copy / "flash_attn_cute" / "interface.py"
    path.write_text(path.read_text(encoding="utf-8") + _UNFINDABLE, encoding="utf-8")
    strict, warning = (
        _job(_STRICT_JOB, copy, small_cache, "flash_attn_cute", on_miss) for on_miss in ("error", "warn")
    )
    assert strict.stdout.split() == warning.stdout.split() == ["ServedSlot"], strict.stderr
    assert strict.stderr.count("`self.kernels[key]` of `flash_attn_cute.interface`; in strict mode") == 1
    assert "self.kernels" not in warning.stderr


_BESIDE = """
import functools
import cutlass.cute as cute
from madeupengine.attention.cute.interface import get_jit_cache

@functools.lru_cache
def _get_cache():
    return get_jit_cache("wide")

def run(key):
    cache = _get_cache()
    if key not in cache:
        cache[key] = cute.compile(key)
"""
_BESIDE_JOB = """
import madeupengine.wide as wide
print(type(wide._get_cache()).__name__, wide._get_cache().name)
import fa4_precompile
fa4_precompile.uninstall()
print(type(wide._get_cache()).__name__, wide._get_cache.__name__)
"""


def test_cache_that_a_function_beside_the_package_keeps_is_served_and_given_back(
    lineage: Path, small_cache: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "madeupengine" / "attention" / "cute"
    shutil.copytree(lineage / "flash_attn_cute", folder)
    for path in folder.rglob("*.py"):
        text = path.read_text(encoding="utf-8").replace("flash_attn_cute", "madeupengine.attention.cute")
        path.write_text(text, encoding="utf-8")
    (tmp_path / "madeupengine" / "wide.py").write_text(_BESIDE)
    job = _job(_BESIDE_JOB, tmp_path, small_cache, "madeupengine.attention.cute", "error")
    assert job.stdout.split() == ["ServedSlot", "wide", "JITCache", "_get_cache"], job.stderr


def _job(code: str, site: Path, root: Path, module: str, on_miss: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]),
        "CUTE_DSL_ARCH": "sm_100a",
        "FLASH_ATTENTION_ARCH": "sm_100",
        "FLASH_ATTENTION_NUM_SMS": "148",
        "FA4_PRECOMPILE_CACHE": str(root),
        "FA4_PRECOMPILE_MODULE": module,
        "FA4_PRECOMPILE_ON_MISS": on_miss,
    }
    return subprocess.run(
        [sys.executable, "-c", "import torch\n" + code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


_COMPUTED = """\
- {name: c, pass: fwd, dtype: bf16, head_dim: 64, sparse: {q_block: 256, kv_block: 128, computed: exact},
   mask_mod: "score_mods:all_visible"}
"""


def _plan(site: Path, tmp_path: Path, more: str = "") -> Any:
    spec = tmp_path / "spec.yaml"
    spec.write_text(_SPEC + more)
    return run("plan", spec, environment={"PYTHONPATH": os.pathsep.join([str(site), str(Path(__file__).parent)])})


@pytest.mark.parametrize(
    ("provider", "message"),
    [
        ("{name: flash-attn-4, module: nowhere_at_all}", "nowhere_at_all"),
        ("{name: flash-attn-5, module: flash_attn_cute}", "allowed: flash-attn-4"),
        ("{name: flash-attn-4, module: a-b}", "`module` can't be `a-b`"),
        ("{module: flash_attn_cute}", "is unknown"),
    ],
)
def test_provider_that_can_not_be_had_is_a_clear_error(provider: str, message: str, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(_SPEC.replace("{name: flash-attn-4, module: flash_attn_cute}", provider))
    done = run("plan", spec)
    assert done.code in (2, 3)
    assert message in done.err
    assert "Traceback" not in done.err

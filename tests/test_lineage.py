"""A package of FlashAttention-4's lineage under another module name: planned, built, and served by the loader."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from lineage import copy_as_module

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

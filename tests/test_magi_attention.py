"""Caller and spec of examples/magi-attention, as they stand there, on a stand-in for MagiAttention's fork.

The fork can't be had here. What stands in is `tests/wild`'s package under the fork's name, with the fork's class of
masks: it has the entry points and keywords that the caller names, and kernels that compute next to nothing.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from checkout import ROOT
from jobs import run_from_scratch
from product import run

pytestmark = pytest.mark.compiles

_PAGE = ROOT / "docs" / "how-to" / "magi-attention.md"
_EXAMPLE = ROOT / "examples" / "magi-attention"
_PACKAGE = ROOT / "tests" / "wild" / "wild_attn" / "cute"

_JOB = """
import json
import torch
from types import SimpleNamespace
from torch._subclasses.fake_tensor import FakeTensorMode
from flash_attn_cute import interface
import fa4_precompile
import magi_calls

with FakeTensorMode():
    q, k, v = (torch.empty(1, 3000, 8, 256, dtype=torch.bfloat16, device="cuda") for _ in range(3))
    sizes = {"head_dim": 256, "qheads_per_kvhead": 1, "seqlen_q": 3000, "seqlen_k": 3000}
    magi_calls.step(interface, SimpleNamespace(q=q, k=k, v=v), pass_="bwd", n_func=3, **sizes)
stats = fa4_precompile.stats()
print(json.dumps([stats.resolved, stats.compiled, stats.missed]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example's caller and spec, and the stand-in for the fork."""
    folder = tmp_path_factory.mktemp("magi")
    shutil.copytree(_PACKAGE, folder / "flash_attn_cute", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (folder / "flash_attn_cute").glob("*.py"):
        path.write_text(path.read_text().replace("LinearBlocks", "LinearBlockSparseTensorsTorch"))
    for name in ("magi_calls.py", "magi.yaml"):
        shutil.copy(_EXAMPLE / name, folder)
    return folder


def _path(folder: Path) -> Mapping[str, str]:
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))}


def test_examples_spec_is_planned_with_its_caller(folder: Path) -> None:
    done = run("plan", folder / "magi.yaml", "--json", environment=_path(folder))
    assert done.code == 0, done.err
    plan: dict[str, Any] = json.loads(done.out)
    assert (plan["variants"], plan["excluded"], plan["broken"]) == (192, [], [])
    slots = {kernel["slot"] for kernel in plan["kernels"]}
    assert slots == {"flash_attn_fwd.kernels_by_key", "flash_attn_bwd"}
    lines = _PAGE.read_text(encoding="utf-8")
    assert f"These are {plan['variants']} calls." in lines


def test_job_with_the_variables_of_the_examples_image_takes_the_kernels_that_the_caller_reached(folder: Path) -> None:
    spec = folder / "part.yaml"
    whole = (folder / "magi.yaml").read_text()
    part = whole.replace("[fp16, bf16]", "bf16").replace("[64, 128, [192, 128], 256]", "256").replace("[1, 3, 5]", "3")
    spec.write_text(part.replace("[1, 4]", "1").replace("seqlen_k: [1024, 128]", "seqlen_k: 1024"))
    built = run("build", spec, "--cache", folder / "kernels", environment=_path(folder))
    assert built.code == 0, built.err
    variables = dict(
        re.findall(r"^ENV (FA4_PRECOMPILE_\w+)=(\S+)$", (_EXAMPLE / "Dockerfile").read_text(), re.MULTILINE)
    )
    variables["FA4_PRECOMPILE_CACHE"] = str(folder / "kernels")
    job = run_from_scratch([sys.executable, "-c", _JOB], **variables, **_path(folder))
    assert job.code == 0, job.err
    assert json.loads(job.out.splitlines()[-1]) == [2, 0, {}]

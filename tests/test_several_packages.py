"""Several packages of FlashAttention-4's lineage in one process: found as they are imported, served from one root."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fa4_copies import copy_as_module

import jobs
from product import Finished, run

pytestmark = pytest.mark.compiles

_SPEC = """
version: 1
provider: {name: flash-attn-4, module: madeup.attention.cute}
targets: [b200]
kernels:
- {name: a, pass: fwd, dtype: bf16, head_dim: 64, causal: true}
"""
_OWN = "flash_attn.cute"
_OTHER = "madeup.attention.cute"

# Nothing is compiled in these jobs: what they would compile stands for itself, as fake tensors launch nothing.
_HEAD = """
import importlib, json, logging, sys
import torch
from dataclasses import asdict
from torch._subclasses.fake_tensor import FakeTensorMode
import fa4_precompile
torch.version.cuda = "13.0"

def load(package):
    return importlib.import_module(package + ".interface")

def call(package, **options):
    with FakeTensorMode(), torch.no_grad():
        q, k, v = (torch.empty(2, 4096, 2, 64, dtype=torch.bfloat16, device="cuda") for _ in range(3))
        load(package).flash_attn_func(q, k, v, **options)

def compile_nothing():
    import cutlass.cute
    cutlass.cute.compile = lambda *_, **__: lambda *_, **__: None

def slot(package):
    return type(load(package)._flash_attn_fwd.compile_cache).__name__

def tell(*more):
    print(json.dumps([asdict(fa4_precompile.stats()), *more]))

OWN, OTHER = "flash_attn.cute", "madeup.attention.cute"
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the package three names deep."""
    return copy_as_module(tmp_path_factory.mktemp("several"), _OTHER)


@pytest.fixture(scope="module")
def both(site: Path, small_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with kernels of the installed package, and one of the copy."""
    folder = tmp_path_factory.mktemp("both")
    shutil.copytree(small_cache, folder / "kernels")
    (folder / "spec.yaml").write_text(_SPEC)
    done = run("build", folder / "spec.yaml", "--cache", folder / "kernels", environment=_finds(site))
    assert done.code == 0, done.err
    return folder / "kernels"


def _finds(site: Path) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}


def _job(site: Path, root: Path, code: str, on_miss: str = "error", module: str = "") -> Finished:
    settings = {
        "FA4_PRECOMPILE_CACHE": str(root),
        "FA4_PRECOMPILE_ON_MISS": on_miss,
        "FA4_PRECOMPILE_MODULE": module,
    }
    done = subprocess.run(
        [sys.executable, "-c", _HEAD + code],
        env={**jobs.environment(**settings), **_finds(site)},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def _told(job: Finished) -> Any:
    assert job.code == 0, job.err
    return json.loads(job.out.splitlines()[-1])


def test_install_finds_what_was_imported_before_and_what_comes_after_and_gives_all_back(site: Path, both: Path) -> None:
    code = f"""
fa4_precompile.uninstall()
import cutlass.cute
real = cutlass.cute.compile
load(OTHER)
for on_miss in ("store", "error"):
    fa4_precompile.install({str(both)!r}, on_miss=on_miss)
    load(OWN)
    during = slot(OTHER), slot(OWN)
    fa4_precompile.uninstall()
    assert cutlass.cute.compile is real
    tell(*during, slot(OTHER), slot(OWN), [type(finder).__name__ for finder in sys.meta_path].count("_Watcher"))
"""
    job = _job(site, both, code)
    assert job.code == 0, job.err
    for line in job.out.splitlines():
        assert json.loads(line)[1:] == ["ServedSlot", "ServedSlot", "JITCache", "JITCache", 0]


@pytest.mark.long
@pytest.mark.parametrize("around", ["", f"import {_OTHER}.interface\n"], ids=["before", "around"])
def test_module_that_was_imported_before_its_packages_interface_or_around_it_is_attached_too(
    site: Path, both: Path, tmp_path: Path, around: str
) -> None:
    shutil.copytree(site, tmp_path / "site")
    folder = tmp_path / "site" / "madeup" / "attention" / "cute"
    (folder / "__init__.py").write_text("")
    module = folder / "compute_block_sparsity.py"
    module.write_text(around + module.read_text(encoding="utf-8"), encoding="utf-8")
    code = """
module = importlib.import_module(OTHER + ".compute_block_sparsity")
load(OTHER)
tell(type(module.compute_block_sparsity.compile_cache).__name__)
"""
    assert _told(_job(tmp_path / "site", both, code))[1] == "ServedSlot"


@pytest.mark.long
def test_failed_install_leaves_the_loader_that_serves_two(site: Path, both: Path) -> None:
    code = f"""
from fa4_precompile.errors import MachineError
from fa4_precompile.providers import installed
load(OTHER), load(OWN)
before = list(sys.meta_path), load(OTHER)._flash_attn_fwd.compile_cache, load(OWN)._flash_attn_fwd.compile_cache
real = installed.source_digest
def digest(package, *more):
    if package == OTHER:
        raise MachineError("its source can't be read", "")
    return real(package, *more)
installed.source_digest = digest
try:
    fa4_precompile.install({str(both)!r}, on_miss="error")
except fa4_precompile.Fa4PrecompileError as error:
    print(error, file=sys.stderr)
after = list(sys.meta_path), load(OTHER)._flash_attn_fwd.compile_cache, load(OWN)._flash_attn_fwd.compile_cache
assert before[0] == after[0] and all(one is other for one, other in zip(before[1:], after[1:]))
"""
    job = _job(site, both, code)
    assert job.code == 0, job.err
    assert "its source can't be read" in job.err


@pytest.mark.long
def test_second_package_that_no_root_has_kernels_for_is_told_once_in_a_sentence(site: Path, small_cache: Path) -> None:
    code = "load(OTHER)\ncompile_nothing()\ncall(OTHER, causal=True)\ncall(OTHER)\ncall(OWN, causal=True)\ntell()"
    job = _job(site, small_cache, code, on_miss="warn")
    (stats,) = _told(job)
    assert (stats["resolved"], stats["compiled"], stats["missed"]) == (1, 2, {"toolchain": 2})
    (said,) = [line for line in job.err.splitlines() if "fa4-precompile" in line]
    assert f"no root has kernels of `{_OTHER}`: `{small_cache}` was built for another installation" in said


@pytest.mark.long
def test_one_key_that_two_packages_miss_is_said_for_each(site: Path, small_cache: Path) -> None:
    code = "load(OTHER), load(OWN)\ncompile_nothing()\nfor one in (OTHER, OWN): call(one, window_size=(64, 0))\ntell()"
    job = _job(site, small_cache, code, on_miss="warn", module=f"{_OWN},{_OTHER}")
    (stats,) = _told(job)
    assert (stats["resolved"], stats["compiled"], sum(stats["missed"].values())) == (0, 2, 2)
    assert job.err.count("no kernel for a call of slot `fwd`") == 2


def test_miss_of_a_root_that_holds_another_packages_kernels_says_so(site: Path, small_cache: Path) -> None:
    job = _job(site, small_cache, "call(OTHER, causal=True)")
    assert job.code == 1
    assert "KernelMissing" in job.err
    assert "(there flash-attn-4 " in job.err
    assert f", here `{_OTHER}`)" in job.err


@pytest.mark.long
def test_kernels_of_both_packages_are_preloaded(site: Path, both: Path) -> None:
    code = """
from unittest import mock
from fa4_precompile.loader.kernel import Kernel
load(OTHER)
before = len(fa4_precompile.preload())
call(OTHER, causal=True), call(OWN, causal=True)
tell(before)
"""
    stats, before = _told(_job(site, both, code))
    assert (before, stats["preloaded"], stats["resolved"]) == (7, 7, 2)


def test_interface_of_something_else_is_left_alone(tmp_path: Path, both: Path) -> None:
    texts = ("def _flash_attn_fwd(): ...", "_flash_attn_fwd = 1", "from os import *", "x: int")
    for number, text in enumerate(texts):
        (tmp_path / f"madeupother{number}").mkdir()
        (tmp_path / f"madeupother{number}" / "interface.py").write_text(text)
    code = f"""
from fa4_precompile.loader.loader import installed_loader
for number in range({len(texts)}):
    load("madeupother%d" % number)
tell([one.cache.provider.package for one in installed_loader().served])
"""
    assert _told(_job(tmp_path, both, code))[1] == [_OWN]

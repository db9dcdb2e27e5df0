"""A package that is loaded from a path, under a name that is made at run time, with a quack of its own.

So does `kernels` of the Hugging Face Hub: `get_kernel("kernels-community/flash-attn4")`, or `LOCAL_KERNELS`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fa4_copies import HUB_ID, copy_as_of_the_hub

import jobs
from product import Finished, records, run

pytestmark = pytest.mark.compiles

_PLACE = "build/torch-universal/flash_attn4"
_SPEC = """
version: 1
provider: {name: flash-attn-4, folder: ./build/torch-universal/flash_attn4}
targets: [b200]
kernels:
- {name: a, pass: bwd, dtype: bf16, head_dim: 64, causal: true}
"""

# As `kernels` does it, whose name for the package is in the build's metadata.
_JOB = """
import importlib.util, json, sys
import torch
from dataclasses import asdict
from torch._subclasses.fake_tensor import FakeTensorMode
torch.version.cuda = "13.0"
folder, name = sys.argv[1:]
spec = importlib.util.spec_from_file_location(name, folder + "/__init__.py")
sys.modules[name] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
import fa4_precompile
interface = sys.modules[name + ".interface"]
with FakeTensorMode(), torch.no_grad():
    q, k, v = (torch.empty(2, 4096, 2, 64, dtype=torch.bfloat16, device="cuda", requires_grad=True) for _ in range(3))
    out, lse = module.flash_attn_func(q, k, v, causal=True)
    interface._flash_attn_bwd(q, k, v, out, torch.empty_like(out), lse, causal=True)
assert not {"quack", "flash_attn"} & set(sys.modules)
print(json.dumps(asdict(fa4_precompile.stats())))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package, a spec that names it from where it is, and the kernels."""
    folder = tmp_path_factory.mktemp("hub")
    copy_as_of_the_hub(folder)
    (folder / "spec.yaml").write_text(_SPEC)
    done = run("build", folder / "spec.yaml", "--cache", folder / "kernels", cwd=Path("/"))
    assert done.code == 0, done.err
    return folder


def _job(built: Path, name: str, **settings: str) -> Finished:
    environment = jobs.environment(
        FA4_PRECOMPILE_CACHE=str(built / "kernels"), FA4_PRECOMPILE_ON_MISS="error", **settings
    )
    command = [sys.executable, "-c", _JOB, str(built / _PLACE), name]
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)
    return Finished(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("named", ["", *(pytest.param(one, marks=pytest.mark.long) for one in ("{folder}", "{link}"))])
def test_package_loaded_from_a_path_is_served_whatever_it_is_called(built: Path, tmp_path: Path, named: str) -> None:
    (tmp_path / "link").symlink_to(built / _PLACE)
    module = named.format(folder=built / _PLACE, link=tmp_path / "link")
    job = _job(built, "_flash_attn4_cuda_0a1b2c3", FA4_PRECOMPILE_MODULE=module)
    assert job.code == 0, job.err
    stats = json.loads(job.out.splitlines()[-1])
    assert (stats["resolved"], stats["compiled"], stats["missed"]) == (len(records(built / "kernels")), 0, {})
    assert stats["resolved"] >= 4


def test_folder_that_is_named_restricts_to_it(built: Path, tmp_path: Path) -> None:
    other = copy_as_of_the_hub(tmp_path)
    job = _job(built, "_flash_attn4_cuda_0a1b2c3", FA4_PRECOMPILE_MODULE=str(other))
    assert job.code == 1
    assert "CompileForbidden" in job.err


def test_keys_of_a_folder_are_without_its_name_and_its_quack_is_in_the_digest(built: Path) -> None:
    assert not any(HUB_ID in record.key for record in records(built / "kernels"))
    assert any(
        "enum" in record.key and ":.bwd_accum_tile.AccumTileOrder." in record.key
        for record in records(built / "kernels")
    )
    (toolchain,) = [json.loads(path.read_text()) for path in (built / "kernels" / "toolchains").iterdir()]
    assert toolchain["traced_libraries"] == {}
    assert toolchain["provider_version"] == "unknown"


def test_check_of_a_folder_holds_until_a_file_in_it_changes(built: Path) -> None:
    arguments = "check", built / "spec.yaml", "--cache", built / "kernels"
    assert run(*arguments).code == 0
    file = built / _PLACE / "quack" / "utils.py"
    before = file.read_bytes()
    file.write_bytes(before + b"# changed\n")
    try:
        done = run(*arguments)
    finally:
        file.write_bytes(before)
    assert done.code == 1
    assert "it was built for another installation: provider source " in done.out

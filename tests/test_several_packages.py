"""Several packages of FlashAttention-4's lineage in one process, named or found; and one that lies in a folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fa4_copies import HUB_ID, copy_as_module, copy_as_of_the_hub

from fa4_precompile.errors import UsageError
from fa4_precompile.loader.imports import ImportWatcher
from fa4_precompile.providers.fa4.placed import name_of
from fa4_precompile.providers.registry import DEFAULT
from product import records, run
from specs import HEAD, error_of, spec_of

_KERNELS = "kernels:\n- {name: a, pass: fwd, dtype: bf16, head_dim: 64, causal: true}\n"

_CALL = """
import json, sys
import torch
from dataclasses import asdict
from torch._subclasses.fake_tensor import FakeTensorMode
import fa4_precompile


def call(interface):
    with FakeTensorMode():
        q, k, v = (torch.empty(2, 4096, 2, 64, dtype=torch.bfloat16, device="cuda") for _ in range(3))
        interface.flash_attn_func(q, k, v, causal=True)


def done():
    print(json.dumps(asdict(fa4_precompile.stats())))


"""

_BOTH = """
from flash_attn.cute import interface
call(interface)
import other_attn.cute.interface
call(other_attn.cute.interface)
done()
"""

# As the package `kernels` loads what `get_kernel` has fetched.
_HUB = """
import importlib.util
spec = importlib.util.spec_from_file_location({name!r}, {folder!r} + "/__init__.py")
module = importlib.util.module_from_spec(spec)
sys.modules[{name!r}] = module
spec.loader.exec_module(module)
call(sys.modules[{name!r} + ".interface"])
done()
"""

_TARGET = {"CUTE_DSL_ARCH": "sm_100a", "FLASH_ATTENTION_ARCH": "sm_100", "FLASH_ATTENTION_NUM_SMS": "148"}


def _job(source: str, cache: Path, environment: Mapping[str, str], on_miss: str = "error") -> Any:
    """Run a job, and return what its loader counted."""
    settings = {"FA4_PRECOMPILE_CACHE": str(cache), "FA4_PRECOMPILE_ON_MISS": on_miss, **_TARGET}
    job = subprocess.run(
        [sys.executable, "-c", _CALL + source],
        env={**os.environ, **settings, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert job.returncode == 0, job.stderr
    return json.loads(job.stdout.splitlines()[-1])


def _counts(stats: Any) -> tuple[int, int, dict[str, int]]:
    return stats["resolved"], stats["compiled"], stats["missed"]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The path of a copy of FlashAttention-4 that is called `other_attn.cute`, as variables of a process."""
    folder = copy_as_module(tmp_path_factory.mktemp("other"), "other_attn.cute")
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


@pytest.fixture(scope="module")
def both(other: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with one kernel of each of the two packages."""
    folder = tmp_path_factory.mktemp("both")
    for provider in ("flash-attn-4", "{name: flash-attn-4, module: other_attn.cute}"):
        spec = folder / "spec.yaml"
        spec.write_text(f"version: 1\nprovider: {provider}\ntargets: [b200]\n{_KERNELS}")
        built = run("build", spec, "--cache", folder / "kernels", environment=other)
        assert built.code == 0, built.err
    assert len(records(folder / "kernels")) == 2
    return folder / "kernels"


@pytest.mark.compiles
@pytest.mark.parametrize("modules", ["", "other_attn.cute,flash_attn.cute"], ids=["found", "named"])
def test_job_with_two_packages_is_served_for_both(both: Path, other: dict[str, str], modules: str) -> None:
    stats = _job(_BOTH, both, {**other, "FA4_PRECOMPILE_MODULE": modules})
    assert _counts(stats) == (2, 0, {})


@pytest.mark.compiles
def test_package_that_was_imported_before_the_loader_is_found(both: Path, other: dict[str, str]) -> None:
    source = f"import other_attn.cute.interface\nfa4_precompile.install({str(both)!r}, on_miss='error')\n{_BOTH}"
    environment = {**other, "FA4_PRECOMPILE_CACHE": "", "FA4_PRECOMPILE_ON_MISS": ""}
    assert _counts(_job(source, both, environment)) == (2, 0, {})


@pytest.mark.compiles
def test_only_the_package_that_is_named_is_served(both: Path, other: dict[str, str]) -> None:
    stats = _job(_BOTH + "", both, {**other, "FA4_PRECOMPILE_MODULE": "other_attn.cute"}, on_miss="warn")
    assert (stats["resolved"], stats["missed"]) == (1, {})


@pytest.mark.compiles
def test_uninstall_gives_every_package_its_caches_back(both: Path, other: dict[str, str]) -> None:
    source = (
        "import flash_attn.cute.interface as one, other_attn.cute.interface as two\n"
        "from fa4_precompile.loader.slot import ServedSlot\n"
        "caches = [one._flash_attn_fwd.compile_cache, two._flash_attn_fwd.compile_cache]\n"
        "assert all(isinstance(cache, ServedSlot) for cache in caches)\n"
        "fa4_precompile.uninstall()\n"
        "assert [one._flash_attn_fwd.compile_cache, two._flash_attn_fwd.compile_cache] == "
        "[cache.original for cache in caches]\n"
        "assert not any(isinstance(cache.original, ServedSlot) for cache in caches)\n"
        "done()\n"
    )
    _job(source, both, other)


@pytest.mark.compiles
def test_package_in_a_folder_is_built_and_served_whoever_names_it(tmp_path: Path) -> None:
    package = copy_as_of_the_hub(tmp_path)
    spec = tmp_path / "spec.yaml"
    place = package.relative_to(tmp_path)
    spec.write_text(f"version: 1\nprovider: {{name: flash-attn-4, folder: {place}}}\ntargets: [b200]\n{_KERNELS}")
    built = run("build", spec, "--cache", tmp_path / "kernels", cwd=Path("/"))
    assert built.code == 0, built.err
    (record,) = records(tmp_path / "kernels")
    assert record.slot == "fwd"
    source = _HUB.format(name=HUB_ID, folder=str(package))
    for module in ("", str(package)):
        assert _counts(_job(source, tmp_path / "kernels", {"FA4_PRECOMPILE_MODULE": module})) == (1, 0, {})


# Names


def test_package_in_a_folder_is_called_by_its_metadata_else_as_the_folder_is(tmp_path: Path) -> None:
    folder = tmp_path / "flash_attn4"
    folder.mkdir()
    for name in ("__init__.py", "interface.py"):
        (folder / name).touch()
    assert name_of(folder) == "flash_attn4"
    (tmp_path / "metadata.json").write_text("no JSON")
    assert name_of(folder) == "flash_attn4"
    (tmp_path / "metadata.json").write_text('{"id": "flash_attn4_1a2b"}')
    assert name_of(folder) == "flash_attn4_1a2b"


def test_folder_that_holds_no_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no package of FlashAttention-4's lineage"):
        name_of(tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("module: a, folder: b", "a package is named by its `module` or by its `folder`, not by both"),
        ("folder: 3", "`folder` can't be `3`"),
        ("folder: nowhere", "is no package of FlashAttention-4's lineage"),
    ],
)
def test_spec_with_a_folder_that_can_not_be_meant_names_its_place(fields: str, message: str) -> None:
    error = error_of(HEAD.replace("flash-attn-4", f"{{name: flash-attn-4, {fields}}}") + _KERNELS)
    assert error.line == 2
    assert message in error.message


def test_spec_of_a_folder_does_not_mean_where_the_folder_is(tmp_path: Path) -> None:
    digests = set()
    for place in ("here", "there"):
        folder = tmp_path / place / "flash_attn4"
        folder.mkdir(parents=True)
        for name in ("__init__.py", "interface.py"):
            (folder / name).touch()
        provider = f"{{name: flash-attn-4, folder: {folder}}}"
        digests.add(spec_of(HEAD.replace("flash-attn-4", provider) + _KERNELS).digest)
    assert len(digests) == 1
    assert digests != {spec_of(HEAD + _KERNELS).digest}


def test_watcher_of_names_ends_looks_at_no_others() -> None:
    watcher = ImportWatcher(["first"], lambda module: None, [".interface"])
    assert watcher.find_spec("json.decoder", None) is None
    assert watcher.find_spec("interface", None) is None
    watcher.watch("json")
    assert watcher.find_spec("json.decoder", __import__("json").__path__) is not None


def test_module_that_is_called_interface_is_not_taken_for_one() -> None:
    module = type(sys)("somebody.interface")
    assert not DEFAULT.is_interface(module)
    vars(module)["_flash_attn_fwd"] = lambda: None
    assert not DEFAULT.is_interface(module)

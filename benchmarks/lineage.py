"""Build and serve packages that carry FlashAttention-4's code, each from PyPI in a virtual environment of its own.

    python benchmarks/lineage.py                      # all of them
    python benchmarks/lineage.py sglang tokenspeed-fa4

Each gets the DSL, quack and TVM-FFI that it asks for, torch as it is pinned here, and of the rest what its import
takes; its other extensions and a GPU are not needed. Prints a table: the compile caches that are found and those that
the source has, what was planned and built, and what a strict job under fake tensors then took from the cache, with the
package's compiler imported and with stand-ins for it. Takes
some five minutes a package on two cores, and 3 GB of disk while it runs.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_REPOSITORY = Path(__file__).resolve().parent.parent
_PINS = ("nvidia-cutlass-dsl", "quack-kernels", "tokenspeed-quack", "apache-tvm-ffi")
_OTHERS = ("numpy", "einops", "triton", "torch-c-dlpack-ext", "pyelftools")

_SPEC = """
version: 1
provider: {name: flash-attn-4, module: %s}
targets: [b200]
kernels:
"""
_DENSE = "- {name: dense, pass: fwd, dtype: bf16, head_dim: 128, causal: true}\n"
_STEP = _DENSE + "- {name: step, pass: bwd, dtype: bf16, head_dim: 64, causal: true}\n"
_VLLM = "".join(
    f"- {{name: {name}-{rows}, pass: fwd, dtype: bf16, head_dim: [64, 128, 256], qheads_per_kvhead: 4, causal: true,\n"
    f"   {lengths}, max_seqlen: given, shape: {{batch: 2, seqlen_q: {rows}, seqlen_k: 8192}}}}\n"
    for name, lengths in {"paged": "varlen: q, seqused: k, paged_kv: 128", "packed": "varlen: true"}.items()
    for rows in (129, 1)  # prefill and decode
)

# What each job begins with: the machine has no GPU, so torch answers as it does in a build, and a parent package that
# needs one is not executed.
_HEAD = """
import json, sys
import torch
from dataclasses import asdict
from torch._subclasses.fake_tensor import FakeTensorMode
import fa4_precompile
from fa4_precompile.precompile.spec.spec import target_book
from fa4_precompile.providers.dsl.device_facts import DeviceFacts
from fa4_precompile.providers.fa4.device import answer_for
from fa4_precompile.providers.fa4.parents import import_module
target, package = target_book().get("b200"), sys.argv[1]
answer_for(target, DeviceFacts(target), torch)
interface = import_module(f"{package}.interface", package)
"""
_TAIL = "\nprint(json.dumps(asdict(fa4_precompile.stats())))\n"
_JOB = """
with FakeTensorMode():
    q, k, v = (torch.empty(2, 4096, 2, 128, dtype=torch.bfloat16, device="cuda") for _ in range(3))
    interface.flash_attn_func(q, k, v, causal=True)
"""
_VLLM_JOB = """
from vllm.vllm_flash_attn.flash_attn_interface import compile_flash_attn_varlen_func_from_specs
for head_dim in (64, 128, 256):
    for rows in (129, 1):
        q = dict(q_shape=(2 * rows, 4, head_dim), q_dtype=torch.bfloat16, cu_seqlens_q_shape=(3,))
        call = dict(max_seqlen_q=rows, max_seqlen_k=8192, causal=True, fa_version=4, num_splits=1)
        pages = (256, 128, 1, head_dim)
        compile_flash_attn_varlen_func_from_specs(
            **q, **call, k_shape=pages, v_shape=pages, seqused_k_shape=(2,), page_table_shape=(2, 64))
        packed = (2 * 8192, 1, head_dim)
        compile_flash_attn_varlen_func_from_specs(
            **q, **call, k_shape=packed, v_shape=packed, cu_seqlens_k_shape=(3,))
"""

_SLOTS = """
import json, os, sys
from fnmatch import filter
from fa4_precompile.precompile.compile.compilers import fork_server_environment
from fa4_precompile.precompile.spec.spec import target_book
from fa4_precompile.providers.fa4.declared import declared
from fa4_precompile.providers.fa4.written import source_of
from fa4_precompile.providers.loaded import loaded_modules_of, loaded_slots
from fa4_precompile.providers.registry import provider_of
provider, target = provider_of(sys.argv[1]), target_book().get("b200")
for name, value in fork_server_environment(provider, target).items():
    if value is None:
        for set_name in filter(list(os.environ), name):
            del os.environ[set_name]
    else:
        os.environ[name] = value
provider.go_live(target)
modules = loaded_modules_of(provider)
print(json.dumps({
    "found": sorted(slot.name for slot in loaded_slots(provider)),
    "declared": len({(m.__name__, one.place or one.line) for m in modules for one in declared(source_of(m))}),
    "unfound": [place for module in modules for place in provider.unfound(module)],
    "distribution": provider.distribution,
}))
"""


@dataclass(frozen=True)
class Package:
    """A package to try.

    Attributes:
        distribution: what pip calls it.
        version: the one that was looked at.
        module: the package that carries the code.
        needs: distributions that its import takes, of the many that it asks for.
        kernels: entries of the spec.
        job: what the strict job calls.
        renamed: the package is a copy of the distribution's `flash_attn.cute`.
    """

    distribution: str
    version: str
    module: str
    needs: tuple[str, ...] = ()
    kernels: str = _DENSE
    job: str = _JOB
    renamed: bool = False


_SGLANG = (
    *("anyio", "certifi", "idna", "msgspec", "orjson", "packaging", "pillow", "psutil", "pybase64", "pydantic-core"),
    *("requests", "starlette", "urllib3"),
)
_PACKAGES = (
    Package("vllm", "0.33.0", "vllm.vllm_flash_attn.cute", kernels=_VLLM, job=_VLLM_JOB),
    Package("sglang", "0.5.23", "sglang.kernels.ops.attention.flash_attn.cute", needs=_SGLANG),
    Package("tokenspeed-fa4", "4.0.0.post20260923", "flash_attn.cute", kernels=_STEP),
    Package("flash-attn-4", "4.0.0b36", "flash_attn_cute", kernels=_STEP, renamed=True),
)


def _run(*command: object, environment: Mapping[str, str] | None = None) -> str:
    variables = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    variables.update(environment or {})
    done = subprocess.run(list(map(str, command)), env=variables, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):  # 1: kernels failed, which the report says
        raise RuntimeError(f"`{' '.join(map(str, command))[:200]}`: {done.stderr.strip()[-1500:]}")
    if done.returncode and not done.stdout.strip():
        raise RuntimeError(done.stderr.strip()[-1500:])
    return done.stdout


def _install(package: Package, folder: Path) -> Path:
    """Make the environment and return its Python."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    install = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    constraints = ("-c", _REPOSITORY / "constraints.txt")
    _run(*install, *constraints, "torch")
    _run(*install, "--no-deps", f"{package.distribution}=={package.version}", *package.needs)
    # The package's own pins, as its metadata have them.
    code = f"import importlib.metadata as m, json; print(json.dumps(m.requires({package.distribution!r})))"
    required = [line.split(";")[0].strip() for line in json.loads(_run(python, "-c", code)) if "extra ==" not in line]
    _run(*install, *(line for line in required if line.startswith(_PINS)), *_OTHERS)
    _run(*install, _REPOSITORY)
    if package.renamed:
        _copy_renamed(python, package.module)
    return python


def _copy_renamed(python: Path, module: str) -> None:
    code = f"""
import importlib.util, pathlib, shutil
source = pathlib.Path(importlib.util.find_spec("flash_attn").submodule_search_locations[0], "cute")
folder = source.parent.parent / {module!r}
shutil.copytree(source, folder)
for path in folder.rglob("*.py"):
    path.write_text(path.read_text(encoding="utf-8").replace("flash_attn.cute", {module!r}), encoding="utf-8")
"""
    _run(python, "-c", code)


def _last(output: str) -> Any:
    return json.loads(output.strip().splitlines()[-1])


def _try(package: Package, folder: Path) -> dict[str, Any]:
    python = _install(package, folder / "venv")
    spec, cache = folder / "lineage.yaml", folder / "kernels"
    spec.write_text(_SPEC % package.module + package.kernels)
    names = "nvidia-cutlass-dsl", "apache-tvm-ffi"
    versions = _run(python, "-c", f"import importlib.metadata as m; print(*[m.version(name) for name in {names}])")
    slots = _last(_run(python, "-c", _SLOTS, package.module))
    command = python.parent / "fa4-precompile"
    built = json.loads(_run(command, "build", spec, "--cache", cache, "--json", "-q"))
    job = {
        "CUTE_DSL_ARCH": "sm_100a",
        "FLASH_ATTENTION_ARCH": "sm_100",
        "FLASH_ATTENTION_NUM_SMS": "148",
        "FA4_PRECOMPILE_CACHE": str(cache),
        "FA4_PRECOMPILE_MODULE": package.module,
        "FA4_PRECOMPILE_ON_MISS": "error",
    }
    stats = {}
    for compiler in ("present", "absent"):
        variables = {**job, "FA4_PRECOMPILE_COMPILER": compiler}
        try:
            told = _run(python, "-c", _HEAD + package.job + _TAIL, package.module, environment=variables)
            stats[compiler] = _last(told)
        except RuntimeError as error:  # of which the table should show the rest
            stats[compiler] = {"resolved": 0, "compiled": 0, "error": str(error)}
    return {"versions": versions.split(), "slots": slots, "built": built, "stats": stats}


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help=", ".join(p.distribution for p in _PACKAGES))
    names = parser.parse_args().packages
    print(f"Python {sys.version.split()[0]}; fa4-precompile {importlib.metadata.version('fa4-precompile')}")
    print(
        f"{'package':16}{'version':20}{'DSL':8}{'TVM-FFI':15}{'slots':>6}{'in source':>10}"
        f"{'planned':>8}{'built':>6}{'resolved':>9}{'compiled':>9}{'no compiler: resolved':>23}"
    )
    for package in _PACKAGES:
        if names and package.distribution not in names:
            continue
        with tempfile.TemporaryDirectory(prefix="fa4-lineage-") as folder:
            try:
                found = _try(package, Path(folder))
            except (RuntimeError, ValueError) as error:
                print(f"{package.distribution:16}{package.version:20}{error}")
                continue
        _print_row(package, found)
        sys.stdout.flush()


def _print_row(package: Package, found: Mapping[str, Any]) -> None:
    (dsl, tvm_ffi), slots, built, stats = found["versions"], found["slots"], found["built"], found["stats"]
    name = package.module if package.renamed else slots["distribution"]
    print(
        f"{name:16}{package.version:20}{dsl:8}{tvm_ffi:15}{len(slots['found']):>6}{slots['declared']:>10}"
        f"{built['kernels']:>8}{built['kernels'] - len(built['failed']):>6}"
        f"{stats['present']['resolved']:>9}{stats['present']['compiled']:>9}{stats['absent']['resolved']:>23}"
    )
    said = [*slots["unfound"], *(item["reason"] for item in built["excluded"])]
    said += [item["error"].strip().splitlines()[-1] for item in built["failed"]]
    said += [one.get("error", "") for one in stats.values()]
    for line in dict.fromkeys(filter(None, said)):
        print(f"  {line[-600:]}")


if __name__ == "__main__":
    _main()

"""The newest releases against the installed ones: what this project stands on that has changed."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from layers import Failed, add_layer, pins, resolve, run, say
from surface import Surface, read_files, read_written

NEWEST = ("flash-attn-4", "nvidia-cutlass-dsl", "quack-kernels")
_DSL = "nvidia-cutlass-dsl"
_TVM_FFI = "apache-tvm-ffi"

# In a process of its own: what it imports is pinned to a target, and may be of a release that nobody knows yet.
_VERSIONS = """
import importlib.metadata, json
from fa4_precompile.providers.packages import package_folder
from fa4_precompile.providers.registry import DEFAULT
names = {found.metadata["Name"].lower().replace("_", "-") for found in importlib.metadata.distributions()}
shown = [name for name in sorted(names) if name.startswith(NAMES)]
print(json.dumps([{name: importlib.metadata.version(name) for name in shown}, str(package_folder(DEFAULT.package))]))
"""
_SLOTS = """
import json, os
from fa4_precompile.precompile.compile.compilers import fork_server_environment
from fa4_precompile.precompile.spec.spec import target_book
from fa4_precompile.providers.loaded import loaded_slots
from fa4_precompile.providers.registry import DEFAULT
target = target_book().get("b200")
os.environ.update({k: v for k, v in fork_server_environment(DEFAULT, target).items() if v is not None})
DEFAULT.go_live(target)
print(json.dumps(sorted(slot.name for slot in loaded_slots(DEFAULT))))
"""


def newest(requirements: Sequence[str], folder: Path) -> tuple[Path, list[str]]:
    """Install the newest pre-releases, whatever they ask for, as a layer; return it and what they ask of each other.

    Raises `Failed`.
    """
    say(f"asking for the newest of {', '.join(requirements)}")
    alone = ("--pre", "--no-deps", "--ignore-installed")
    found = resolve(sys.executable, *requirements, options=alone)
    versions = pins(found)
    if _DSL in versions:  # it is several distributions, of one version each
        with_libraries = resolve(sys.executable, f"{_DSL}=={versions[_DSL]}", options=("--pre", "--ignore-installed"))
        versions |= {name: version for name, version in pins(with_libraries).items() if name.startswith(_DSL)}
    asked = [f"{item['name']} {item['version']} asks for {asked}" for item in found for asked in _asked(item, versions)]
    return add_layer(sys.executable, folder, versions), asked


def _asked(item: Mapping[str, Any], versions: Mapping[str, str]) -> list[str]:
    names = (*versions, _TVM_FFI)
    required = [line for line in item.get("requires_dist", ()) if "extra ==" not in line]
    return [line for line in required if line.startswith(names) and not line.startswith(f"{_DSL}-libs")]


def survey(spec: str, layers: Sequence[Path] = ()) -> Surface:
    """Return what this project sees of what is installed, with layers over it. Raises `Failed` if that has no FA4."""
    say(f"looking at {layers[0] if layers else 'what is installed'}")
    names = (*NEWEST, _TVM_FFI)
    versions, folder = json.loads(_python(_VERSIONS.replace("NAMES", repr(names)), layers))
    surface = Surface(versions, read_files(Path(folder)), read_written(Path(folder)))
    try:
        surface = replace(surface, found=json.loads(_python(_SLOTS, layers)))
    except Failed as error:
        return replace(surface, broken=[f"no plan: the package can't be imported: {_last_line(error)}"])
    try:
        command = (sys.executable, "-m", "fa4_precompile", "plan", spec, "--json")
        plan = json.loads(run(command, layers, may_find=True))
    except Failed as error:
        return replace(surface, broken=[f"no plan: {error}"])
    broken = [f"{_call(item['variant'])}: {_last_line(item['error'])}" for item in plan["broken"]]
    return replace(
        surface,
        kernels=len(plan["kernels"]),
        refused={_call(item["variant"]): item["reason"] for item in plan["excluded"]},
        broken=broken,
    )


def _python(code: str, layers: Sequence[Path]) -> str:
    return run([sys.executable, "-c", code], layers)


def _call(variant: Mapping[str, object]) -> str:
    return " ".join(f"{name}={value}" for name, value in variant.items())


def _last_line(error: object) -> str:
    return str(error).strip().splitlines()[-1]

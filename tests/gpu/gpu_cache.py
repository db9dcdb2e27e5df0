"""The cache that the GPU tests take their kernels from: named by `--kernels`, or built for the GPU that is here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fa4_precompile.cache.manifest import Manifest
from fa4_precompile.cache.store import Root
from fa4_precompile.providers.dsl.driver import Device, detect_driver
from product import run


def gpu() -> Device | None:
    """Return the first Hopper or Blackwell GPU."""
    driver = detect_driver()
    found = [device for device in driver.devices if int(device.arch[3:].rstrip("a")) >= 90] if driver else []
    return found[0] if found else None


def gpu_marks() -> list[Any]:
    """Return the marks of a test that needs one."""
    return [
        pytest.mark.gpu,
        pytest.mark.skipif(gpu() is None, reason="no Hopper or Blackwell GPU is visible here"),
    ]


def kernels_for(spec: Path, request: pytest.FixtureRequest, folders: pytest.TempPathFactory) -> Path:
    """Return a cache that has a spec for this GPU."""
    named = request.config.getoption("--kernels")
    if named:
        return Path(named).absolute()
    import torch

    device = gpu()
    assert device is not None
    folder = folders.mktemp("gpu")
    profile = {"name": "here", "arch": device.arch, "sms": device.sms, "cuda": int(torch.version.cuda.split(".")[0])}
    own = folder / spec.name
    own.write_text(spec.read_text() + f"targets: [{json.dumps(profile)}]\n")
    done = run("build", own, "--cache", folder / "kernels", "-q")
    assert done.code == 0, done.err
    return folder / "kernels"


def excluded_calls(kernels: Path) -> dict[str, str]:
    """Return why a call is not in a cache, by the call."""
    manifests = [item for item in Root(kernels).manifests() if isinstance(item, Manifest)]
    return {json.dumps(item.variant): item.reason for manifest in manifests for item in manifest.excluded}

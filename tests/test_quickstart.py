"""The shipped quickstart: the README's first command builds it, and it is all that a job with its calls needs."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
from job_venv import make_job_venv
from stock_fa4 import compiled_by_stock

import product
from checkout import clone
from fa4_precompile.cache.manifest import Manifest
from fa4_precompile.cache.store import Root
from fake_job import Call
from jobs import command, report_of, run_from_scratch
from product import origin, records

pytestmark = [pytest.mark.compiles, pytest.mark.long]

CALLS = [
    Call(head_dim=head_dim, causal=causal, training=training)
    for training, head_dim, causal in itertools.product((False, True), (64, 128, 256), (False, True))
]


@pytest.fixture(scope="module")
def quickstart_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make build` makes in a fresh clone, verified.

    With the packages of this environment: `make test` in CI shows that the Makefile installs them.
    """
    fresh = clone(tmp_path_factory.mktemp("clones") / "any-name")
    (fresh / ".venv").symlink_to(sys.prefix)
    make = ["make", "--assume-old=.venv/.installed", "build"]
    done = subprocess.run(make, cwd=fresh, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    counts = f"{len(CALLS)} calls, 23 kernels, 23 built, 0 already there, 0 calls excluded, 0 failed"
    assert counts in done.stderr
    assert "is whole: 23 kernels" in done.stderr
    return fresh / "build" / "kernels"


@pytest.fixture(scope="module")
def manifest(quickstart_cache: Path) -> Manifest:
    """What the build says that it is made of."""
    (found,) = Root(quickstart_cache).manifests()
    assert isinstance(found, Manifest)
    return found


def test_manifest_of_the_quickstart_is_complete_and_names_every_kernel_of_the_cache(
    quickstart_cache: Path, manifest: Manifest
) -> None:
    assert manifest.complete
    assert sorted(manifest.kernels) == sorted(record.id for record in records(quickstart_cache))
    assert {origin(quickstart_cache, one).variant["head_dim"] for one in records(quickstart_cache)} == {
        64,
        128,
        256,
    }


def test_strict_job_that_makes_every_call_of_the_quickstart_resolves_every_kernel_of_its_manifest(
    quickstart_cache: Path, manifest: Manifest
) -> None:
    arguments = product.command("run", "--cache", quickstart_cache, "--strict", "--", *command(CALLS))
    report = report_of(run_from_scratch(arguments))
    assert report.missing == []
    assert report.stats["resolved"] == len(manifest.kernels)
    assert (report.stats["missed"], report.stats["compiled"], report.stats["refused"]) == ({}, 0, 0)


def test_strict_job_in_a_venv_without_the_dsl_resolves_every_kernel_of_the_quickstart(
    quickstart_cache: Path, manifest: Manifest, tmp_path: Path
) -> None:
    python = str(make_job_venv(tmp_path / "venv"))
    job = [python, *command(CALLS)[1:]]
    arguments = [python, "-m", "fa4_precompile", "run", "--cache", str(quickstart_cache), "--strict", "--", *job]
    report = report_of(run_from_scratch(arguments))
    assert report.missing == []
    assert report.stats["resolved"] == len(manifest.kernels)
    assert (report.stats["missed"], report.stats["compiled"], report.stats["refused"]) == ({}, 0, 0)


def test_each_cubin_of_the_quickstart_is_what_flash_attention_compiles_for_the_same_key(
    quickstart_cache: Path, tmp_path: Path
) -> None:
    stock = {(slot, key): cubin for slot, key, cubin in compiled_by_stock(CALLS, tmp_path)}
    ours: dict[tuple[str, str], str] = {(one.slot, one.key): one.cubin for one in records(quickstart_cache)}
    assert stock
    assert stock == ours

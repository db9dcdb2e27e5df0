"""Kernels as a pip wheel: its bytes, what pip makes of it, and a job that finds them with no setting."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.metadata
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fa4_precompile.cache.listing import list_contents
from fa4_precompile.cache.outcome import Hit
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.verify import verify_root
from fa4_precompile.loader import wheels
from fa4_precompile.loader.config import Config
from fa4_precompile.loader.wheels import Wheel, installed_wheels
from jobs import command, environment, report_of, run_from_scratch
from loader_tasks import SMALL
from product import records, run
from support import (
    make_manifest,
    make_record,
    make_target,
    make_toolchain,
    numbered_record,
    overwrite,
    publish_library,
    publish_synthetic,
    record_file,
    synthetic_blob,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A cache of three kernels, all of one build."""
    publish_synthetic(tmp_path / "cache", 3)
    return tmp_path / "cache"


def _wheel(path: Path, folder: Path, *more: object, spec: str = "synthetic") -> Path:
    done = run("wheel", spec, "--cache", path, "--output", folder, *more)
    assert done.code == 0, done.err
    (wheel,) = folder.glob("*.whl")
    return wheel


def _install(wheel: Path, folder: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--target", folder, wheel], check=True, capture_output=True)
    return folder


def _root(site: Path) -> Path:
    (root,) = site.glob("fa4_kernels_*/root")
    return root


def test_wheel_of_equal_contents_has_equal_bytes_whatever_order_folder_and_umask(path: Path, tmp_path: Path) -> None:
    publisher = Publisher(Root(tmp_path / "elsewhere" / "other"))
    before = os.umask(0o077)
    try:
        publisher.create()
        publish_library(publisher, make_toolchain())
        for number in (2, 0, 1):
            publisher.publish(numbered_record(number), synthetic_blob(number))
        publisher.publish_manifest(make_manifest(*map(numbered_record, range(3))))
        publisher.publish_toolchain(make_toolchain())
        other = _wheel(publisher.root.path, tmp_path / "b", "--version", "1.0")
    finally:
        os.umask(before)
    one = _wheel(path, tmp_path / "a", "--version", "1.0")
    assert one.name == other.name
    assert one.read_bytes() == other.read_bytes()


def test_wheel_is_for_the_glibc_that_its_kernels_name_and_requires_what_must_fit(tmp_path: Path) -> None:
    blob = b"needs GLIBC_2.31\0 and GLIBC_2.9\0"
    toolchain = make_toolchain(provider_version="4.0.0b36", tvm_ffi="0.1.15.post2")
    record = make_record(blob, toolchain=toolchain.id)
    publisher = Publisher(Root(tmp_path / "cache"))
    publisher.create()
    publisher.publish_toolchain(toolchain)
    publisher.publish(record, blob)
    publisher.publish_manifest(make_manifest(record, toolchain=toolchain.id))
    done = run("wheel", "synthetic", "--cache", publisher.root.path, "--output", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    made = json.loads(done.out)
    version = f"4.0.0b36+f{made['fingerprint'][:8]}"
    assert Path(made["wheel"]).name == (
        f"fa4_kernels_synthetic_sm_100a-{version}-py3-none-manylinux_2_31_{toolchain.machine}.whl"
    )
    assert "apache-tvm-ffi==0.1.*" in made["requires"]
    assert "not installed here, so the wheel does not require it" in done.err  # which it was built of


def test_wheel_has_a_record_of_every_file_and_metadata_that_pip_reads(path: Path, tmp_path: Path) -> None:
    wheel = _wheel(path, tmp_path / "out")
    machine = make_toolchain().machine
    assert wheel.name.startswith("fa4_kernels_synthetic_sm_100a-0+f")
    assert wheel.name.endswith(f"-py3-none-manylinux_2_17_{machine}.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (one for one in archive.namelist() if one.endswith(".dist-info/RECORD"))
        rows = {row[0]: row[1:] for row in csv.reader(io.StringIO(archive.read(name).decode()))}
        assert set(rows) == set(archive.namelist())
        for file, (digest, size) in rows.items():
            if file != name:
                data = archive.read(file)
                found = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
                assert (digest, int(size)) == (f"sha256={found}", len(data))
    site = _install(wheel, tmp_path / "site")
    (distribution,) = importlib.metadata.distributions(path=[str(site)])
    assert distribution.metadata["Name"] == "fa4-kernels-synthetic-sm-100a"
    assert any(one.startswith("fa4-precompile>=") for one in distribution.requires or ())


def test_installed_wheel_is_a_sealed_root_that_verifies_whatever_the_umask_was(path: Path, tmp_path: Path) -> None:
    wheel = _wheel(path, tmp_path / "out")
    before = os.umask(0o002)
    try:
        root = _root(_install(wheel, tmp_path / "site"))
    finally:
        os.umask(before)
    assert root.stat().st_mode & 0o020  # which a root of no name would be refused for
    fingerprint = list_contents(Root(path)).fingerprint
    found = Wheel(root, fingerprint).root(Root(root).trust, Root(root).vouchers)
    assert isinstance(found.find(make_toolchain().id, numbered_record(1).id), Hit)
    assert verify_root(found).findings == []
    overwrite(record_file(root, numbered_record(1)), numbered_record(1, cubin_bytes=1).render_file())
    again = Wheel(root, fingerprint).root(Root(root).trust, Root(root).vouchers)
    assert not isinstance(again.find(make_toolchain().id, numbered_record(1).id), Hit)


def test_wheel_of_several_archs_or_of_no_build_is_refused_with_what_there_is(path: Path, tmp_path: Path) -> None:
    target = make_target(name="b300", arch="sm_103a")
    record = numbered_record(7, arch="sm_103a")
    Publisher(Root(path)).publish(record, synthetic_blob(7))
    Publisher(Root(path)).publish_manifest(make_manifest(record, target=target))
    refused = run("wheel", "synthetic", "--cache", path, "--output", tmp_path)
    assert (refused.code, "2: sm_100a, sm_103a" in refused.err) == (2, True)
    assert _wheel(path, tmp_path / "one", "--arch", "sm_103a").name.startswith("fa4_kernels_synthetic_sm_103a")
    absent = run("wheel", "another", "--cache", path, "--output", tmp_path)
    assert absent.code == 2
    assert not list(tmp_path.glob("*.whl"))


def test_spec_whose_name_is_code_makes_no_wheel(path: Path, tmp_path: Path) -> None:
    name = 'x"""\nimport os\n"""'
    Publisher(Root(path)).publish_manifest(make_manifest(numbered_record(1), spec=name, spec_digest="e" * 64))
    done = run("wheel", name, "--cache", path, "--output", tmp_path / "out")
    assert (done.code, "no wheel can be called after the spec" in done.err) == (2, True)
    assert not list(tmp_path.glob("out/*"))


def test_wheel_that_is_there_is_replaced_only_if_asked_for(path: Path, tmp_path: Path) -> None:
    wheel = _wheel(path, tmp_path / "out")
    assert "is there already" in run("wheel", "synthetic", "--cache", path, "--output", tmp_path / "out").err
    wheel.write_bytes(b"")
    assert _wheel(path, tmp_path / "out", "--force").stat().st_size > 0


def test_wheels_are_found_by_entry_point_and_what_cannot_be_meant_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "kernels_a.py").write_text("CACHE = '/opt/a', 'a' * 64\nBROKEN = 7\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    entries = [
        importlib.metadata.EntryPoint(name, value, "fa4_precompile.roots")
        for name, value in {"b": "kernels_a:BROKEN", "c": "kernels_gone:CACHE", "a": "kernels_a:CACHE"}.items()
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: entries)
    assert installed_wheels() == (Wheel(Path("/opt/a"), "a" * 64),)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2


def test_settings_of_a_job_name_wheels_only_where_they_name_no_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wheel = Wheel(tmp_path, "a" * 64)
    monkeypatch.setattr("fa4_precompile.loader.config.installed_wheels", lambda: (wheel,))
    found = Config.for_job({})  # also where there is no home
    assert (found.roots, found.wheels) == ((), (wheel,))
    assert Config.from_env({**found.render(), "HOME": "/root"}).roots == Config.from_env({"HOME": "/root"}).roots
    assert Config.for_job({"FA4_PRECOMPILE_CACHE": "/opt/k"}).wheels == ()
    assert Config.for_job({}, [Path("/opt/k")]).wheels == ()
    monkeypatch.setattr("fa4_precompile.loader.config.installed_wheels", lambda: ())
    assert Config.for_job({"HOME": "/root"}).roots == Config.from_env({"HOME": "/root"}).roots
    assert wheels.installed_wheels() == ()


# A job


@pytest.mark.compiles
def test_job_in_whose_python_the_wheel_is_resolves_everything_with_no_setting_but_strict(
    small_cache: Path, small_spec: Path, tmp_path: Path
) -> None:
    wheel = _wheel(small_cache, tmp_path / "out", spec=str(small_spec))
    assert "manylinux_2_" in wheel.name
    site = _install(wheel, tmp_path / "site")
    requires = importlib.metadata.distributions(path=[str(site)])
    assert any(line.startswith("flash-attn-4==") for one in requires for line in one.requires or ())
    paths = os.pathsep.join([str(site), environment()["PYTHONPATH"]])
    number = len(records(small_cache))

    strict = report_of(run_from_scratch(command(SMALL), PYTHONPATH=paths, FA4_PRECOMPILE_ON_MISS="error"))
    assert (strict.stats["resolved"], strict.stats["missed"], strict.stats["compiled"]) == (number, {}, 0)
    by_itself = report_of(run_from_scratch(command(SMALL), PYTHONPATH=paths))
    assert (by_itself.stats["resolved"], by_itself.stats["missed"]) == (number, {})
    without = run_from_scratch(command(SMALL), FA4_PRECOMPILE_ON_MISS="error")
    assert without.code == 2
    assert "nor is a wheel of kernels installed" in without.err


@pytest.mark.long
@pytest.mark.compiles
def test_two_ranks_of_torchrun_take_their_kernels_from_the_wheel(
    small_cache: Path, small_spec: Path, tmp_path: Path
) -> None:
    site = _install(_wheel(small_cache, tmp_path / "out", spec=str(small_spec)), tmp_path / "site")
    paths = os.pathsep.join([str(site), environment()["PYTHONPATH"]])
    program, *words = command(SMALL)[1:]
    ranks = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", program, *words]
    report = tmp_path / "report.jsonl"
    done = run_from_scratch(ranks, PYTHONPATH=paths, FA4_PRECOMPILE_ON_MISS="error", FA4_PRECOMPILE_REPORT=str(report))
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    served = [line for line in lines if line["resolved"]]
    assert [(line["resolved"], line["missed"]) for line in served] == [(len(records(small_cache)), {})] * 2

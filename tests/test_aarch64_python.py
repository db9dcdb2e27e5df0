"""Kernels for aarch64 hosts, built on another kind of machine: the loader of an aarch64 Python, under qemu, takes them.

`tests/aarch64_python.sh FOLDER` makes the Python; `FA4_TEST_AARCH64_PYTHON=FOLDER` says where it is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import aarch64_tasks
import pytest
from aarch64_tasks import LookedUp
from job_venv import link_ourselves

import jobs
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.target import host_machine
from fa4_precompile.cache.toolchain import Toolchain
from fa4_precompile.products import load
from fa4_precompile.products.cubin import exported_symbols, imported_symbols
from fa4_precompile.products.foreign import machine_of
from fa4_precompile.providers.dsl.installation import require_runtime_library
from fake_job import Call
from product import SMALL_SPEC, Finished, records, run
from support import blob_file

_FOLDER = Path(os.environ.get("FA4_TEST_AARCH64_PYTHON", "")).absolute()  # jobs run elsewhere

pytestmark = [
    pytest.mark.compiles,
    pytest.mark.skipif(
        not (_FOLDER / "python").is_file(), reason="FA4_TEST_AARCH64_PYTHON names no folder of tests/aarch64_python.sh"
    ),
    pytest.mark.skipif(host_machine() == "aarch64", reason="here nothing is for another kind of host"),
]

# The small spec for a B200 with a Grace host, which nobody sells: jobs of both hosts look the same keys up.
_SPEC = SMALL_SPEC.replace("[b200]", "[{base: b200, name: b200-grace, machine: aarch64}]")
_CALLS = [Call(), Call(causal=False), Call(training=True)]  # what comes to all of its kernels
_KERNELS = 6


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for `PYTHONPATH` that has this checkout, its entry points too."""
    folder = tmp_path_factory.mktemp("ours")
    link_ourselves(folder)
    return folder


@pytest.fixture(scope="module")
def cross_built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the small spec, built here for aarch64 hosts."""
    folder = tmp_path_factory.mktemp("cross-built")
    (folder / "small.yaml").write_text(_SPEC)
    done = run("build", folder / "small.yaml", "--cache", folder / "cache")
    assert done.code == 0, done.err
    return folder / "cache"


@pytest.fixture(scope="module")
def whole(cross_built: Path) -> Path:
    """The same with the run-time library of aarch64, for jobs that have none installed."""
    cache = shutil.copytree(cross_built, cross_built.with_name("whole"))
    (toolchain,) = Root(cache).toolchains()
    assert isinstance(toolchain, Toolchain)
    Publisher(Root(cache)).publish_library(toolchain.id, _library(_FOLDER / "dsl", "libcute_dsl_runtime.so"))
    return cache


@pytest.fixture(scope="module")
def both(small_cache: Path, cross_built: Path) -> Path:
    """A cache that has the kernels of both hosts, and the run-time library of one."""
    cache = cross_built.with_name("both")
    done = run("merge", cache, small_cache, cross_built)
    assert done.code == 0, done.err
    return cache


def _library(folder: Path, name: str) -> Path:
    (path,) = folder.rglob(name)
    return path


def _aarch64(ours: Path, arguments: Sequence[object], *more: str, **changes: str) -> Finished:
    """Run the aarch64 Python as a job's; `more` are folders beside its own packages: `torch`, `dsl`."""
    path = [ours, Path(__file__).parent, *(_FOLDER / name for name in more)]
    environment = {"PYTHONPATH": os.pathsep.join(map(str, path)), "TVM_FFI_DISABLE_TORCH_C_DLPACK": "1", **changes}
    return jobs.run_from_scratch([str(_FOLDER / "python"), *map(str, arguments)], **environment)


def _command(ours: Path, *arguments: object, more: Sequence[str] = ()) -> Finished:
    return _aarch64(ours, ["-m", "fa4_precompile", *arguments], *more)


def _look_up(ours: Path, cache: Path, *more: str) -> list[LookedUp]:
    done = _aarch64(ours, [aarch64_tasks.__file__, cache], *more)
    assert done.code == 0, done.err
    return aarch64_tasks.parse(done.out)


def _look_up_here(cache: Path) -> list[LookedUp]:
    done = jobs.run_from_scratch([sys.executable, aarch64_tasks.__file__, str(cache)])
    assert done.code == 0, done.err
    return aarch64_tasks.parse(done.out)


# Commands


def test_commands_of_an_aarch64_python_say_of_a_cross_built_cache_what_they_say_here(ours: Path, whole: Path) -> None:
    kernel = records(whole)[0].id
    for arguments in (["verify"], ["ls", "--json"], ["show", kernel]):
        there, here = _command(ours, *arguments, "--cache", whole), run(*arguments, "--cache", whole)
        assert there.code == here.code == 0, there.err
        assert there.out == here.out


def test_doctor_of_an_aarch64_job_is_content_and_says_whose_kernels_others_are(
    ours: Path, whole: Path, small_cache: Path
) -> None:
    done = _command(ours, "doctor", "--role", "job", "--cache", whole, more=["torch"])
    assert done.code == 0, done.out
    assert "libcute_dsl_runtime.so load, the latter from the cache" in done.out
    done = _command(ours, "doctor", "--role", "job", "--cache", small_cache, more=["torch", "dsl"])
    assert done.code == 1
    assert "was built for another installation: host x86_64 there, aarch64 here" in done.out


# Lookups


def test_every_record_of_a_cross_built_cache_is_resolved_and_its_function_answers(ours: Path, whole: Path) -> None:
    found = _look_up(ours, whole)
    assert [(one.record, one.machine) for one in found] == [(one.kernel, "aarch64") for one in found]
    assert len(found) == _KERNELS
    for one in found:
        assert one.raised.startswith("TypeError: Expects ")
        assert "parameters when calling: `__call__(m" in one.raised
        assert "the driver does not take its cubin" in one.unready  # there is no driver


def test_run_time_library_that_is_installed_serves_where_the_cache_has_none(ours: Path, cross_built: Path) -> None:
    found = _look_up(ours, cross_built, "dsl")
    assert [one.kernel for one in found] == [one.record for one in found]
    assert len(found) == _KERNELS


def test_cache_of_x86_kernels_is_a_miss_that_names_the_host_and_nothing_is_opened(
    ours: Path, small_cache: Path
) -> None:
    found = _look_up(ours, small_cache, "dsl")
    assert len(found) == _KERNELS
    for one in found:
        assert (one.kernel, one.reason) == ("", "toolchain")
        assert "host x86_64 there, aarch64 here" in one.detail


def test_cross_built_cache_is_a_miss_here_that_names_the_host(whole: Path) -> None:
    found = _look_up_here(whole)
    assert len(found) == _KERNELS
    for one in found:
        assert (one.kernel, one.reason) == ("", "toolchain")
        assert f"host aarch64 there, {host_machine()} here" in one.detail


def test_cache_with_kernels_of_both_hosts_serves_each_its_own(ours: Path, both: Path) -> None:
    there, here = _look_up(ours, both, "dsl"), _look_up_here(both)
    machines = {one.record: one.machine for one in there}
    assert len(machines) == 2 * _KERNELS
    for found, machine in ((there, "aarch64"), (here, host_machine())):
        assert {machines[one.kernel] for one in found} == {machine}
        assert {one.kernel for one in found} == {one for one in machines if machines[one] == machine}
    assert [one.raised for one in there] == [one.raised for one in here]


def test_job_on_aarch64_without_the_compiler_resolves_all_that_it_calls_and_so_does_one_here(
    ours: Path, both: Path
) -> None:
    strict = {"FA4_PRECOMPILE_CACHE": str(both), "FA4_PRECOMPILE_ON_MISS": "error"}
    command = jobs.command(_CALLS)
    there = jobs.report_of(_aarch64(ours, command[1:], "torch", "dsl", **strict))
    here = jobs.report_of(jobs.run_from_scratch(command, **strict))
    for report in (there, here):
        assert (report.stats["resolved"], report.stats["missed"], report.stats["compiled"]) == (_KERNELS, {}, 0)
        assert report.missing == []


def test_wheel_of_cross_built_kernels_is_for_aarch64_and_found_there(ours: Path, whole: Path, tmp_path: Path) -> None:
    made = run("wheel", whole.with_name("small.yaml"), "--cache", whole, "-o", tmp_path)
    assert made.code == 0, made.err
    (wheel,) = tmp_path.iterdir()
    assert wheel.name.endswith("_aarch64.whl")
    shutil.unpack_archive(wheel, tmp_path / "site", "zip")
    found = _command(tmp_path / "site", "doctor", "--role", "job", more=[str(ours)])
    assert f"wheel: {_KERNELS} kernels in `{tmp_path}" in found.out
    assert "has kernels of what is installed here" in found.out


def test_builders_last_test_of_a_blob_passes_on_aarch64(ours: Path, cross_built: Path) -> None:
    asked = b""
    for record in records(cross_built):
        asked += f"{record.symbol} {record.blob_bytes}\n".encode() + blob_file(cross_built, record).read_bytes()
    path = os.pathsep.join(map(str, (ours, _FOLDER / "dsl")))
    done = subprocess.run(
        [_FOLDER / "python", "-c", f"from {load.__name__} import main; main()"],
        env=jobs.environment(PYTHONPATH=path),
        input=asked,
        capture_output=True,
        check=False,
    )
    assert done.stdout.decode().splitlines() == ['""'] * _KERNELS, done.stderr


# Blobs


def test_blobs_need_only_what_the_libraries_of_aarch64_have(cross_built: Path) -> None:
    provided = {
        name: exported_symbols(_library(_FOLDER / folder, name).read_bytes())
        for folder, name in (("packages", "libtvm_ffi.so"), ("dsl", "libcute_dsl_runtime.so"), ("root", "libc.so.6"))
    }
    for record in records(cross_built):
        needed = imported_symbols(blob_file(cross_built, record).read_bytes())
        assert needed
        assert needed - set().union(*provided.values()) == set()


def test_run_time_libraries_of_aarch64_have_the_functions_of_those_here() -> None:
    """On which a build relies, which looks at those here."""
    tvm_ffi = load.tvm_ffi_library()
    assert tvm_ffi is not None
    for here, folder in ((tvm_ffi, "packages"), (require_runtime_library(), "dsl")):
        there = _library(_FOLDER / folder, here.name)
        needed, provided = exported_symbols(here.read_bytes()), exported_symbols(there.read_bytes())
        assert {name for name in needed - provided if not name.startswith("_Z")} == set()
        assert machine_of(there.read_bytes()) == "aarch64"

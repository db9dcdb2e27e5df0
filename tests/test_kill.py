"""Builders that are killed or interrupted, at any moment, leave a valid cache that the next build goes on from."""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from product import SMALL_SPEC, command, records, run

pytestmark = pytest.mark.compiles


@dataclass(frozen=True)
class Build:
    """A build in a process of its own, and a mark by which its descendants are found when it is gone."""

    process: subprocess.Popen[str]
    mark: str

    def compilers(self) -> list[int]:
        """Return the fork server and its children that are alive."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                alive = path.joinpath("stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
                if alive and self.mark.encode() in path.joinpath("environ").read_bytes():
                    found.append(int(path.name))
        return [pid for pid in found if pid != self.process.pid]

    def wait_until_all_are_gone(self) -> None:
        """Fail the test if a compiler outlives its build."""
        deadline = time.monotonic() + 120
        while self.compilers():
            assert time.monotonic() < deadline, f"compilers outlived their build: {self.compilers()}"
            time.sleep(0.05)


@contextlib.contextmanager
def _building(spec: Path, cache: Path, *options: str, **environment: str) -> Iterator[Build]:
    mark = f"FA4_TEST_BUILD={secrets.token_hex(8)}"
    name, value = mark.split("=")
    process = subprocess.Popen(
        command("build", spec, "--cache", cache, *options),
        env={**os.environ, **environment, name: value},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Build(process, mark)
    finally:
        process.kill()
        process.wait()


def _spec_of_two(folder: Path) -> Path:
    """Write a spec of two kernels."""
    path = folder / "spec.yaml"
    path.write_text(SMALL_SPEC[: SMALL_SPEC.index("- {name: training")])
    return path


def _wait_for(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    pytest.fail(f"the build ended before it said {text!r}")


def _published(cache: Path) -> dict[str, int]:
    return {str(path): path.stat().st_ino for path in cache.glob("records/*/*/*.json")}


@pytest.mark.long
@pytest.mark.chance
def test_build_killed_at_any_moment_leaves_a_clean_cache_and_the_next_build_completes_it(
    small_spec: Path, small_cache: Path, tmp_path: Path
) -> None:
    cache, temporary = tmp_path / "cache", tmp_path / "tmp"
    temporary.mkdir()
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    for moment in ("asking", "[1/", "[2/"):
        with _building(small_spec, cache, "--jobs", "2", TMPDIR=str(temporary)) as build:
            _wait_for(build.process, moment)
            time.sleep(moments.uniform(0, 1.5))
            build.process.kill()
            build.wait_until_all_are_gone()
        assert list(temporary.iterdir()) == []
        assert run("verify", "--cache", cache).code == 0, f"seed {seed}, killed after {moment!r}"
    before = _published(cache)
    assert before, "the last kill came after two kernels"
    report = json.loads(run("build", small_spec, "--cache", cache, "--json").out)
    assert (report["cached"], report["built"], report["failed"]) == (len(before), 6 - len(before), [])
    assert before.items() <= _published(cache).items(), "a published record was written again"
    assert run("verify", "--cache", cache).code == 0
    assert {r.id: r.blob for r in records(cache)} == {r.id: r.blob for r in records(small_cache)}


@pytest.mark.chance
def test_build_killed_while_it_has_a_temporary_file_leaves_none(small_spec: Path, tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    with _building(small_spec, tmp_path / "cache", "--jobs", "2", TMPDIR=str(temporary)) as build:
        _wait_for(build.process, "compiling 6 kernels")
        _wait_for_file(temporary)
        build.process.kill()
        build.wait_until_all_are_gone()
    assert list(temporary.iterdir()) == []


def _wait_for_file(folder: Path) -> None:
    """Wait until a compiler writes something that it would leave if it were killed just now."""
    deadline = time.monotonic() + 120
    while not list(folder.glob("*/fa4-*")):
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.chance
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
def test_build_interrupted_says_so_keeps_what_it_published_and_leaves_no_process(
    small_spec: Path, tmp_path: Path, number: signal.Signals
) -> None:
    cache = tmp_path / "cache"
    with _building(small_spec, cache) as build:
        _wait_for(build.process, "[1/")
        build.process.send_signal(number)
        _, rest = build.process.communicate(timeout=300)
        build.wait_until_all_are_gone()
    assert build.process.returncode == 130
    assert "interrupted; what is done is kept" in rest
    assert "Traceback" not in rest
    assert records(cache)
    assert not list(cache.rglob(".tmp-*"))
    assert run("verify", "--cache", cache).code == 0


def test_worker_killed_while_compiling_is_one_failed_kernel_with_its_cause(tmp_path: Path) -> None:
    with _building(_spec_of_two(tmp_path), tmp_path / "cache", "--jobs", "1", "--json") as build:
        _wait_for(build.process, "compiling 2 kernels")
        os.kill(_compiling_child(build), signal.SIGKILL)
        out, _ = build.process.communicate(timeout=300)
    report = json.loads(out)
    assert build.process.returncode == 1
    (failure,) = report["failed"]
    assert "killed by SIGKILL" in failure["error"]
    assert report["built"] == 1 == len(records(tmp_path / "cache"))


def _compiling_child(build: Build) -> int:
    """Return the child of the fork server, once it has one."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for pid in build.compilers():
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            if children:
                return int(children[0])
        time.sleep(0.02)
    return pytest.fail("the fork server has forked nothing")


@pytest.mark.long
@pytest.mark.chance
def test_two_builds_of_one_spec_at_once_compile_each_kernel_once(tmp_path: Path) -> None:
    cache, spec = tmp_path / "cache", _spec_of_two(tmp_path)
    with (
        _building(spec, cache, "--json", "--jobs", "1") as first,
        _building(spec, cache, "--json", "--jobs", "1") as second,
    ):
        outputs = [build.process.communicate(timeout=300)[0] for build in (first, second)]
    reports = [json.loads(output) for output in outputs]
    assert sorted(report["built"] for report in reports) == [0, 2]
    assert all(report["kernels"] == 2 and not report["failed"] for report in reports)
    assert run("verify", "--cache", cache).code == 0

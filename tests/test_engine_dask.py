"""Builds on a real Dask cluster: what comes back is the same, and no worker that is lost, odd or lying does harm."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from clusters import Cluster, cluster
from fa4_precompile.cache.origin import Origin
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.verify import verify_root
from product import command, run

pytestmark = pytest.mark.compiles

_TESTS = Path(__file__).parent
_SPEC = """
version: 1
provider: toy-kernels
targets: [b200]
kernels:
- {name: both, op: [scale, add], dtype: bf16, width: [1024, 2048]}
- {name: wide, op: scale, dtype: fp32, width: 512, tile: [[128, 8]]}
"""


def _on_path(*folders: Path) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(map(str, (*folders, _TESTS / "toy", os.environ.get("PYTHONPATH", ""))))}


_TOY = _on_path()


def _fingerprint(cache: Path) -> str:
    return run("fingerprint", "--cache", cache).out.strip()


def _is_whole(cache: Path) -> bool:
    return not verify_root(Root(cache)).findings


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("engine") / "toy.yaml"
    path.write_text(_SPEC)
    return path


@pytest.fixture(scope="module")
def local(spec: Path) -> str:
    """The fingerprint of a build by this machine's own pool."""
    done = run("build", spec, "--cache", spec.parent / "local", environment=_TOY)
    assert done.code == 0, done.err
    return _fingerprint(spec.parent / "local")


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of two workers that nobody harms."""
    with cluster(tmp_path_factory.mktemp("dask"), _TOY, _TOY) as made:
        yield made


@pytest.mark.long
def test_build_on_dask_is_the_same_as_here_and_says_which_machine_did_what(
    spec: Path, local: str, dask: Cluster
) -> None:
    cache = spec.parent / "dask"
    done = run("build", spec, "--cache", cache, "--executor", dask.engine, "--json", environment=_TOY)
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert (report["built"], list(report["machines"].values()), report["failed"]) == (5, [5], [])
    assert "compiling 5 kernels, 2 at a time" in done.err
    assert len(set(re.findall(r"built in \S+ s by (tcp://\S+:\d+): ", done.err))) == 2
    assert _fingerprint(cache) == local
    again = run("build", spec, "--cache", cache, "--executor", "dask://127.0.0.1:1", environment=_TOY)
    assert again.code == 0, "nothing to do, and nobody asked"


@pytest.mark.long
def test_workers_publish_into_a_cache_that_all_share(spec: Path, local: str, dask: Cluster) -> None:
    cache = spec.parent / "shared"
    place = f"dask://{dask.folder / 'scheduler.json'}"
    done = run("build", spec, "--cache", cache, "--executor", place, "--workers-publish", "-q", environment=_TOY)
    assert (done.code, done.err) == (0, "")
    assert _fingerprint(cache) == local
    origins = [origin for origin in Root(cache).origins() if isinstance(origin, Origin)]
    assert len(origins) == 5


@pytest.mark.long
def test_lost_odd_and_lying_workers_are_named_and_do_no_harm(spec: Path, local: str, tmp_path: Path) -> None:
    shutil.copytree(_TESTS / "toy", tmp_path / "odd")
    with (tmp_path / "odd" / "toy_kernels" / "rows.py").open("a") as source:
        source.write("\n# Another release.\n")
    odd = {"PYTHONPATH": os.pathsep.join([str(tmp_path / "odd"), os.environ.get("PYTHONPATH", "")])}
    wire, liar = ({**_on_path(_TESTS / "liar"), "LIAR": where} for where in ("wire", "worker"))
    with cluster(tmp_path / "dask", _TOY, odd, wire, liar, _TOY) as made:
        called = made.addresses()
        building = _start("build", spec, "--cache", tmp_path / "cache", "--executor", made.engine)
        lost = made.workers[-1]
        said = _until(building, r"built in|compiling")
        lost.kill()
        _, rest = building.communicate(timeout=600)
    said += rest
    assert building.returncode == 0, said
    worker, *liars = [re.escape(called[worker.pid]) for worker in made.workers[1:4]]
    assert re.search(rf"worker {worker} gets no work: provider_source is `\w+` there, `\w+` here", said), said
    for worker in liars:
        assert re.search(rf"worker {worker} has sent what can't be true, and gets no more work", said), said
    assert _fingerprint(tmp_path / "cache") == local
    assert _is_whole(tmp_path / "cache")


@pytest.mark.long
def test_lost_scheduler_ends_the_build_and_the_next_one_goes_on(spec: Path, tmp_path: Path) -> None:
    with cluster(tmp_path / "dask", _TOY) as made:
        building = _start("build", spec, "--cache", tmp_path / "cache", "--executor", made.engine)
        said = _until(building, r"built in")
        made.scheduler.kill()
        said += building.communicate(timeout=600)[1]
    assert building.returncode == 3, said
    assert "is lost: " in said
    assert "what was built is published; the next build goes on from there" in said
    assert "Traceback" not in said
    assert _is_whole(tmp_path / "cache")
    done = run("build", spec, "--cache", tmp_path / "cache", "--json", environment=_TOY)
    assert json.loads(done.out)["cached"] >= 1


def _start(*arguments: object, environment: Mapping[str, str] = _TOY) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments),
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _until(process: subprocess.Popen[str], words: str) -> str:
    """Return what a process has said on standard error up to the line with some words."""
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if re.search(words, line):
            return said
    raise AssertionError(f"it never said {words!r}:\n{said}")

"""Fixtures: caches of real kernels that are built once a session."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import pytest

import loader_tasks
from command_line import Cli
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.store import Root
from jobs import Jobs, pool_of_jobs
from product import SMALL_SPEC, Finished, run
from support import publish_synthetic


@pytest.fixture(scope="session")
def small_spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spec of six kernels for b200."""
    path = tmp_path_factory.mktemp("specs") / "small.yaml"
    path.write_text(SMALL_SPEC)
    return path


@pytest.fixture(scope="session")
def small_cache(small_spec: Path, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A cache that holds the small spec, one for all workers of a test run. Tests that change it copy it first."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    cache = shared / "small-cache"
    with filelock.FileLock(shared / "small-cache.lock"):  # who comes second finds nothing to do
        done = run("build", small_spec, "--cache", cache)
    assert done.code == 0, done.err
    return cache


@pytest.fixture(scope="session")
def jobs() -> Iterator[Jobs]:
    """Jobs that call FlashAttention-4, forked from a process that has imported it."""
    pool = pool_of_jobs(loader_tasks.prepare)
    yield Jobs(pool)
    pool.shutdown(wait=False)  # what hangs has failed its test


@pytest.fixture(scope="module")
def open_folder() -> Iterator[Path]:
    """A folder that any user can get to; those above pytest's own are closed."""
    with tempfile.TemporaryDirectory(prefix="fa4-test-") as folder:
        path = Path(folder).resolve()
        path.chmod(0o755)
        yield path


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """Take SIGINT as at a terminal: a test run in the background ignores it, and what it starts inherits that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def write_spec(tmp_path: Path) -> Callable[[str], Path]:
    """Write the `kernels` (and more) of a spec to a file and return its path."""

    def write(body: str) -> Path:
        path = tmp_path / "spec.yaml"
        path.write_text(f"version: 1\nprovider: flash-attn-4\n{body}")
        return path

    return write


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the GPU suite and of the long tests."""
    parser.addoption("--kernels", metavar="DIR", help="gpu tests: take the kernels from this cache")
    parser.addoption("--long", action="store_true", help="also the tests that are marked `long`")
    parser.addoption("--effort", metavar="N", type=int, default=1, help="tests of chance: try N times as often")


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """An empty cache."""
    made = Root(tmp_path / "cache")
    Publisher(made).create()
    return made


@pytest.fixture(params=[0o002, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    """The umask of a builder."""
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Run the command line in an empty folder, for a user whose home is empty too."""
    work = tmp_path / "work"
    home = tmp_path / "home"
    work.mkdir()
    home.mkdir()
    clean = {"HOME": str(home), "XDG_CACHE_HOME": "", "FA4_PRECOMPILE_CACHE": ""}

    def call(*arguments: object, **environment: str) -> Finished:
        done = run(*arguments, environment=clean | environment, cwd=work)
        assert "Traceback" not in done.err
        return done

    return call


@pytest.fixture
def synthetic(tmp_path: Path) -> Path:
    """A cache of two synthetic kernels."""
    publish_synthetic(tmp_path / "cache", 2)
    return tmp_path / "cache"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is long, unless that is asked for."""
    if not config.getoption("--long"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="long: `make test-all` runs it"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Try what depends on chance so often, each `attempt` a test of its own; but for what takes `effort` itself."""
    if metafunc.definition.get_closest_marker("chance") and "effort" not in metafunc.fixturenames:
        if "attempt" not in metafunc.fixturenames:
            metafunc.fixturenames.append("attempt")
        metafunc.parametrize("attempt", range(metafunc.config.getoption("--effort")))


@pytest.fixture(scope="session")
def effort(pytestconfig: pytest.Config) -> int:
    """How much more often than usual the tests try what depends on chance."""
    return int(pytestconfig.getoption("--effort"))

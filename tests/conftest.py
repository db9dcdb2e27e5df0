"""Fixtures: caches of real kernels that are built once a session."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import loader_tasks
import pytest
from jobs import Jobs, pool_of_jobs

from product import SMALL_SPEC, run


@pytest.fixture(scope="session")
def small_spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spec of six kernels for b200."""
    path = tmp_path_factory.mktemp("specs") / "small.yaml"
    path.write_text(SMALL_SPEC)
    return path


@pytest.fixture(scope="session")
def small_cache(small_spec: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds the small spec. Tests that change it copy it first."""
    cache = tmp_path_factory.mktemp("caches") / "small"
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


@pytest.fixture
def write_spec(tmp_path: Path) -> Callable[[str], Path]:
    """Write the `kernels` (and more) of a spec to a file and return its path."""

    def write(body: str) -> Path:
        path = tmp_path / "spec.yaml"
        path.write_text(f"version: 1\nprovider: flash-attn-4\n{body}")
        return path

    return write


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of the GPU suite."""
    parser.addoption("--kernels", metavar="DIR", help="gpu tests: take the kernels from this cache")

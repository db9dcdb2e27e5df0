"""What is installed: wheel, sdist, and the README's commands in a fresh clone."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from checkout import clone, tracked_files

_NOT_INSTALLED = ("tests/", "docs/", "benchmarks/", "examples/", "setup.py")


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that is built from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    source = clone(folder / "any-name")
    subprocess.run([sys.executable, "-m", "build", "--outdir", folder, source], check=True, capture_output=True)
    return folder


def test_wheel_installs_nothing_outside_the_package_and_all_of_it(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"fa4_precompile"}
    inside = {name.removeprefix("fa4_precompile/") for name in names}
    modules = {name for name in tracked_files() if name.endswith(".py") and not name.startswith(_NOT_INSTALLED)}
    assert modules <= inside
    assert {"py.typed", "kernel_specs/quickstart.yaml", "kernel_specs/targets.yaml"} <= inside
    assert not [name for name in inside if name.startswith(("tests/", "docs/", "benchmarks/", "examples/"))]


def _modules_of_wheel(source: Path, wheels: Path) -> set[str]:
    """Make a wheel in a checkout, as a user does, and return the files of the package in it."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    options = ["--no-build-isolation", "--no-deps", "--wheel-dir", str(wheels)]
    subprocess.run([*pip, *options, str(source)], check=True, capture_output=True)
    (wheel,) = wheels.glob("*.whl")
    return {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("fa4_precompile/")}


def test_wheel_that_is_made_again_is_made_of_what_is_there(tmp_path: Path) -> None:
    source = clone(tmp_path / "any-name")
    kernels = source / "build" / "kernels" / "README"
    kernels.parent.mkdir(parents=True)
    kernels.write_text("a cache that `make build` has made")
    gone = ("text/words.py", "kernel_specs/quickstart.yaml")
    before = _modules_of_wheel(source, tmp_path / "before")
    assert {f"fa4_precompile/{name}" for name in gone} <= before
    for name in gone:
        (source / name).unlink()
    after = _modules_of_wheel(source, tmp_path / "after")
    assert before - after == {f"fa4_precompile/{name}" for name in gone}
    assert after <= before
    assert kernels.is_file()


def test_sdist_holds_what_a_wheel_is_made_of_and_the_license(distributions: Path) -> None:
    (sdist,) = distributions.glob("*.tar.gz")
    names = {name.split("/", 1)[1] for name in tarfile.open(sdist).getnames() if "/" in name}
    assert {"LICENSE", "README.md", "pyproject.toml", "cli.py", "cache/store.py", "precompile/build.py"} <= names


@pytest.mark.long
def test_installed_wheel_runs_with_its_base_dependencies_only(distributions: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    (wheel,) = distributions.glob("*.whl")
    pip = [tmp_path / "venv/bin/pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*map(str, pip), str(wheel)], check=True)
    command = tmp_path / "venv/bin/fa4-precompile"
    listed = subprocess.run([command, "targets", "--json"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "b200" in {profile["name"] for profile in json.loads(listed.stdout)}
    refused = subprocess.run(
        [command, "build", "quickstart", "--cache", tmp_path / "cache"], capture_output=True, text=True, cwd=tmp_path
    )
    assert refused.returncode == 3
    assert "pip install 'fa4-precompile[build]'" in refused.stderr

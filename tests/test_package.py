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

_ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that is built from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    clone = _clone(folder / "any-name")
    subprocess.run([sys.executable, "-m", "build", "--outdir", folder, clone], check=True, capture_output=True)
    return folder


def _clone(to: Path) -> Path:
    """Copy the files that git knows, as they are in the working tree, so that uncommitted work is tested too."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=_ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        source, target = _ROOT / name, to / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
            target.chmod(source.stat().st_mode)
    return to


def test_wheel_installs_nothing_outside_the_package_and_all_of_it(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"fa4_precompile"}
    inside = {name.removeprefix("fa4_precompile/") for name in names}
    for package in ("", "cache", "precompile", "kernel_specs"):
        for path in (_ROOT / package).glob("*.py"):
            assert path.relative_to(_ROOT).as_posix() in inside
    assert {"py.typed", "kernel_specs/quickstart.yaml", "kernel_specs/targets.yaml"} <= inside
    assert not [name for name in inside if name.startswith(("tests/", "docs/", "benchmarks/"))]


def test_sdist_holds_what_a_wheel_is_made_of_and_the_license(distributions: Path) -> None:
    (sdist,) = distributions.glob("*.tar.gz")
    names = {name.split("/", 1)[1] for name in tarfile.open(sdist).getnames() if "/" in name}
    assert {"LICENSE", "README.md", "pyproject.toml", "cli.py", "cache/store.py", "precompile/build.py"} <= names


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


@pytest.mark.compiles
def test_make_build_in_a_fresh_clone_builds_and_verifies_the_quickstart(tmp_path: Path) -> None:
    # With the packages of this environment: `make test` in CI shows that the Makefile installs them.
    clone = _clone(tmp_path / "any-name")
    (clone / ".venv").symlink_to(sys.prefix)
    make = ["make", "--assume-old=.venv/.installed", "build"]
    done = subprocess.run(make, cwd=clone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "12 calls, 23 kernels, 23 built, 0 already there, 0 calls excluded, 0 failed" in done.stderr
    assert "is whole: 23 kernels" in done.stderr
    dims = {
        json.loads(path.read_text())["variant"]["head_dim"] for path in clone.glob("build/kernels/records/*/*/*.json")
    }
    assert dims == {64, 128, 256}

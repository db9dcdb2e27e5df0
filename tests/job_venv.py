"""A virtual environment as a job's image has it: the packages that are installed here, without the compiler's.

Packages are linked, so it takes milliseconds and no network.
"""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path

import fa4_precompile

ROOTS = ("torch", "apache-tvm-ffi", "click", "PyYAML", "filelock", "tqdm")
"""Distributions that a job has with all that they need, as far as it is installed."""

ALONE = ("flash-attn-4",)
"""Distributions that a job has, and not what they need."""

_NAME = re.compile(r"[\w.-]+")


def make_job_venv(folder: Path, more: Sequence[str] = ()) -> Path:
    """Make it in a folder, with some distributions more, and return its Python."""
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for name in {*_closure([*ROOTS, *more]), *ALONE}:
        for path in _top_level(name):
            if not (site / path.name).exists():
                (site / path.name).symlink_to(path)
    link_ourselves(site)
    return folder / "bin" / "python"


def _closure(names: Sequence[str]) -> Iterator[str]:
    seen: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        if (plain := name.lower().replace("_", "-")) not in seen:
            seen.add(plain)
            yield name
            needed = [one for one in requirements if "extra ==" not in one]
            left += [match[0] for one in needed if (match := _NAME.match(one))]


def _top_level(distribution: str) -> list[Path]:
    """Return what a distribution has put into the packages' folder."""
    found = importlib.metadata.distribution(distribution)
    names = {path.parts[0] for path in found.files or () if path.parts[0] not in ("..", "__pycache__")}
    return [Path(str(found.locate_file(name))) for name in names]


def link_ourselves(site: Path) -> None:
    """Install this checkout, its entry points too."""
    (site / "fa4_precompile").symlink_to(Path(fa4_precompile.__file__).resolve().parent)
    distribution = importlib.metadata.distribution("fa4-precompile")
    information = site / "fa4_precompile-0.dist-info"
    information.mkdir()
    for name in ("METADATA", "entry_points.txt"):
        (information / name).write_text(distribution.read_text(name) or "")
    shutil.copymode(Path(__file__), information / "METADATA")

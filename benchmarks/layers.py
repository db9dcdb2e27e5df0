"""Releases in folders of their own that lie over an environment: what `pip install --target` makes, on PYTHONPATH.

A release takes the time of its download, where a virtual environment would take torch with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_DSL_PACKAGES = "nvidia_cutlass_dsl/*/cutlass"  # they reach the path by a `.pth`, which PYTHONPATH does not read
_LINES_SHOWN = 12


class Failed(Exception):
    """A command ended with an error, in its own words."""


def say(words: str) -> None:
    """Print what is going on."""
    print(words, file=sys.stderr, flush=True)


def run(command: Sequence[object], layers: Sequence[Path] = (), may_find: bool = False) -> str:
    """Run a command with layers over its Python, the first above the others, and return its output.

    Raises `Failed` if it fails; with `may_find`, exit code 1 is an answer: there are findings, which the output names.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    path = {"PYTHONPATH": os.pathsep.join(_path(layers))} if layers else {}
    arguments = list(map(str, command))
    done = subprocess.run(arguments, env={**inherited, **path}, capture_output=True, text=True, check=False)
    if done.returncode != 0 and not (may_find and done.returncode == 1):
        words = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
        raise Failed("\n".join(words[-_LINES_SHOWN:]))
    return done.stdout


def _path(layers: Sequence[Path]) -> list[str]:
    packages = [str(found.parent) for layer in layers for found in sorted(layer.glob(_DSL_PACKAGES))]
    return [*map(str, layers), *packages]


def pip(python: object, *arguments: object) -> str:
    """Run a Python's pip. Raises `Failed`."""
    return run([python, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments])


def resolve(python: object, *requirements: str, options: Sequence[str] = ()) -> list[Mapping[str, Any]]:
    """Return the metadata of what pip would install for requirements, on top of what a Python has. Raises `Failed`."""
    report = pip(python, "install", "--dry-run", "--report", "-", *options, *requirements)
    return [item["metadata"] for item in json.loads(report)["install"]]


def pins(found: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the version of each distribution, by its name as PyPI writes it."""
    return {item["name"].lower().replace("_", "-"): item["version"] for item in found}


def add_layer(python: object, folder: Path, versions: Mapping[str, str]) -> Path:
    """Install these releases, and nothing that they ask for, into a folder, unless it is there. Raises `Failed`."""
    if not folder.exists():
        # At once: pip does not lay a second distribution over a folder that the first has made.
        pinned = [f"{name}=={version}" for name, version in versions.items()]
        say(f"installing {', '.join(pinned)}")
        pip(python, "install", "--no-deps", "--target", folder, *pinned)
    return folder

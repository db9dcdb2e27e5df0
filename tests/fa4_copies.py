"""Copies of the installed FlashAttention-4 under other names, made for the tests and gone after them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from fa4_precompile.providers.packages import package_folder
from fa4_precompile.providers.registry import DEFAULT

HUB_ID = "flash_attn4_of_the_hub"


def copy_as_module(folder: Path, name: str) -> Path:
    """Copy the package to a folder that may be on the path, under a name of one part or more; return the folder."""
    target = folder.joinpath(*name.split("."))
    _copy(DEFAULT.package, target)
    for path in target.rglob("*.py"):
        _rewrite(path, lambda text: text.replace(DEFAULT.package, name))
    return folder


def copy_as_of_the_hub(folder: Path) -> Path:
    """Copy the package as the Hugging Face Hub has it: imports are relative, quack is inside; return its folder.

    Beside it lies the `metadata.json` that says how the package `kernels` is to call it.
    """
    package = folder / "build" / "torch-universal" / "flash_attn4"
    _copy(DEFAULT.package, package)
    _copy("quack", package / "quack")
    for path in package.rglob("*.py"):
        depth = len(path.relative_to(package).parts)
        _rewrite(path, lambda text, up="." * depth: _relative(text, up))
    (package.parent / "metadata.json").write_text(json.dumps({"id": HUB_ID, "version": 1}))
    return package


def _relative(text: str, up: str) -> str:
    own, quack = re.escape(DEFAULT.package), "quack"
    text = re.sub(rf"\bfrom {own}\.", f"from {up}", text)
    text = re.sub(rf"\bfrom {own} import", f"from {up} import", text)
    text = re.sub(rf"\bimport {own}\.(\w+) as", rf"from {up} import \1 as", text)
    text = re.sub(rf"\bfrom {quack}\b", f"from {up}{quack}", text)
    text = re.sub(rf"\bimport {quack}((?:\.\w+)*)\.(\w+) as", rf"from {up}{quack}\1 import \2 as", text)
    text = re.sub(rf"\bimport {quack} as", f"from {up} import {quack} as", text)
    return re.sub(rf"\bimport {quack}((?:\.\w+)*)\.(\w+)(?= |$)", rf"from {up}{quack}\1 import \2", text)


def _copy(package: str, target: Path) -> None:
    source = package_folder(package)
    assert source is not None
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))


def _rewrite(path: Path, change: object) -> None:
    assert callable(change)
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")

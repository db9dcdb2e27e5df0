"""`doctor`: says what was looked at and no more, and has an answer whatever is on disk."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from command_line import Cli, documents, require_error, write_spec
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.target import MACHINES, host_machine
from fa4_precompile.commands.doctor import Item, Role, examine
from fa4_precompile.providers.installed import installed_toolchain
from fa4_precompile.providers.registry import DEFAULT
from loadable import publish_loadable
from support import join, start, write_distribution

_FOLDERS = ("records", "blobs", "blobs/sha256", "toolchains", "manifests", "libraries")
_ONLY_FOR_BUILDS = {"DSL versions", "DSL libraries", "triton", "numpy", "elftools", "linker", "toolchain"} | {
    f"{machine} hosts" for machine in MACHINES if machine != host_machine()
}


def _item(cli: Cli, what: str, *arguments: object, **environment: str) -> dict[str, Any]:
    """Return the one thing of that name that was looked at."""
    done = cli("doctor", "--json", *arguments, **environment)
    items = documents(done)
    assert done.code == int(not all(item["ok"] for item in items))
    (item,) = [item for item in items if item["what"] == what]
    found: dict[str, Any] = item
    return found


def _compiler(folder: Path, body: str) -> str:
    path = folder / "some-cc"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return os.fspath(path)


def test_doctor_prints_the_name_of_what_kernels_are_built_of(cli: Cli) -> None:
    assert _item(cli, "toolchain")["found"] == installed_toolchain(DEFAULT).id
    assert _item(cli, "toolchain", CUTE_DSL_LINEINFO="1")["found"] != installed_toolchain(DEFAULT).id


# The compiler


def test_doctor_prints_what_it_found_and_makes_nothing(cli: Cli, tmp_path: Path) -> None:
    linker = _item(cli, "linker", CC="/nonexistent/cc")
    assert not linker["ok"]
    assert "CC" in linker["mend"]
    assert list((tmp_path / "home").iterdir()) == []


def test_setting_that_can_not_be_meant_is_said_once(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FA4_PRECOMPILE_TOOLCHAIN", "bogus")
    done = cli("doctor")
    assert done.code == 1
    assert done.out.count("bogus") == 1
    assert done.out.startswith("FAIL settings: `FA4_PRECOMPILE_TOOLCHAIN=bogus` can't be meant\n     allowed: ")


def test_compiler_that_names_no_version_is_one(cli: Cli, tmp_path: Path) -> None:
    compiler = _compiler(tmp_path, "exit 0")
    linker = _item(cli, "linker", CC=compiler)
    assert linker == {"what": "linker", "ok": True, "found": f"`{compiler}`, which names no version", "mend": ""}


@pytest.mark.long
@pytest.mark.parametrize("body", ["exit 1", "sleep 600"], ids=["fails", "hangs"])
def test_compiler_that_fails_or_hangs_is_said(cli: Cli, tmp_path: Path, body: str) -> None:
    compiler = _compiler(tmp_path, body)
    linker = _item(cli, "linker", CC=compiler)
    assert not linker["ok"]
    assert linker["found"] == f"`{compiler} --version` fails, or does not end"


def test_compiler_with_a_quote_that_is_left_open_is_a_sentence(cli: Cli, tmp_path: Path) -> None:
    said = "`CC=\"gcc` can't be split into words: no closing quotation"
    assert _item(cli, "linker", CC='"gcc')["found"] == said
    error = require_error(cli("build", write_spec(tmp_path), "--cache", tmp_path / "made", CC='"gcc'), 3)
    assert f"error: {said}" in error
    assert "hint: close the quote" in error


# The cache


@pytest.mark.parametrize("name", _FOLDERS)
@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_cache_with_a_folder_that_others_can_write_fails_and_names_it(
    cli: Cli, synthetic: Path, name: str, mode: int
) -> None:
    (synthetic / name).mkdir(parents=True, exist_ok=True)
    (synthetic / name).chmod(mode)
    cache = _item(cli, "cache", "--cache", synthetic)
    assert not cache["ok"]
    assert f"`{synthetic / name}` is not trusted: others can write it" in cache["found"]
    assert f"`chmod go-w {synthetic / name}`" in cache["mend"]


def test_cache_with_a_symlink_for_a_folder_fails(cli: Cli, synthetic: Path, tmp_path: Path) -> None:
    (synthetic / "blobs").rename(tmp_path / "elsewhere")
    (synthetic / "blobs").symlink_to(tmp_path / "elsewhere")
    assert "it is a symlink" in _item(cli, "cache", "--cache", synthetic)["found"]


def test_cache_that_is_in_order_is_said_to_be_as_far_as_it_was_looked_at(cli: Cli, synthetic: Path) -> None:
    cache = _item(cli, "cache", "--cache", synthetic)
    assert cache["ok"]
    there = [name for name in _FOLDERS if (synthetic / name).is_dir()]
    assert {"records", "blobs", "blobs/sha256"} <= set(there)
    names = ", ".join(f"`{name}`" for name in ("format.json", *there))
    assert f"the folder and its {names} belong to you or root, and nobody else can write them" in cache["found"]
    assert "`fa4-precompile verify`" in cache["mend"]


def _look_as_somebody(root: Path) -> None:
    if os.geteuid() == 0:
        os.seteuid(65534)
    (cache,) = [item for item in examine(root, None) if item.what == "cache"]
    assert not cache.ok
    assert "Permission denied" in cache.found


def test_cache_in_a_folder_that_the_user_cannot_look_into_fails(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0)
    try:
        join(start(_look_as_somebody, closed / "root"))
    finally:
        closed.chmod(0o700)


@pytest.mark.parametrize("kind", ["a file", "a loop", "something else"])
def test_cache_that_is_none_fails(cli: Cli, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "cache"
    if kind == "a file":
        path.write_text("no folder")
    elif kind == "a loop":
        path.symlink_to(path)
    else:
        path.mkdir()
        (path / "format.json").mkdir()
    cache = _item(cli, "cache", "--cache", path)
    assert not cache["ok"]
    assert f"`{path}" in cache["found"]


# Roles


def _hide(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    find_spec = importlib.util.find_spec

    def find(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name in packages else find_spec(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find)


def _examine(root: Root, role: Role | None) -> dict[str, Item]:
    return {item.what: item for item in examine(root.path, role)}


def test_job_is_not_asked_for_what_only_a_build_needs(cli: Cli, tmp_path: Path) -> None:
    publish_loadable(tmp_path / "cache", 1)
    everything = {item["what"] for item in documents(cli("doctor", "--json", "--role", "build"))}
    done = cli("doctor", "--json", "--role", "job", "--cache", tmp_path / "cache", CC="/nonexistent/cc")
    of_builds = everything - {item["what"] for item in documents(done)}
    assert of_builds - {"known bad"} == _ONLY_FOR_BUILDS  # that is there if what is installed is on the list
    assert done.code == 0


def test_job_with_no_cache_fails_and_a_build_makes_one(cli: Cli, tmp_path: Path) -> None:
    assert not _item(cli, "cache", "--role", "job", "--cache", tmp_path / "none")["ok"]
    assert _item(cli, "cache", "--role", "build", "--cache", tmp_path / "none")["ok"]
    assert _item(cli, "cache", "--cache", tmp_path / "none")["ok"]


def test_machine_without_the_extra_may_lack_what_only_a_build_needs(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    _hide(monkeypatch, "elftools", "triton")
    monkeypatch.setenv("CC", "/nonexistent/cc")
    items = _examine(root, None)
    assert all(items[what].ok for what in ("triton", "elftools", "linker"))
    assert items["triton"].found == "not installed"
    assert items["triton"].mend.startswith("only a build needs it; `pip install")


def _look_where_nothing_can_be_made(folder: Path, is_ok: bool) -> None:
    if os.geteuid() == 0:
        os.seteuid(65534)
    (cache,) = [item for item in examine(folder / "cache", None) if item.what == "cache"]
    assert f"a build can't make a cache there: `{folder}` can't be written" in cache.found
    assert cache.ok is is_ok


@pytest.mark.parametrize("has_extra", [False, True])
def test_cache_that_cannot_be_made_is_wrong_only_where_builds_are_meant(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch, has_extra: bool
) -> None:
    open_folder.chmod(0o555)
    _hide(monkeypatch, *([] if has_extra else ["elftools"]))
    join(start(_look_where_nothing_can_be_made, open_folder, not has_extra))


@pytest.mark.parametrize("role", [None, Role.BUILD])
def test_machine_with_the_extra_in_parts_fails(root: Root, monkeypatch: pytest.MonkeyPatch, role: Role | None) -> None:
    _hide(monkeypatch, "triton")
    assert not _examine(root, role)["triton"].ok


def test_builder_without_the_extra_fails(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    _hide(monkeypatch, "elftools")
    assert not _examine(root, Role.BUILD)["elftools"].ok


@pytest.mark.parametrize("role", [None, *Role])
def test_machine_without_torch_fails_in_each_role(
    root: Root, monkeypatch: pytest.MonkeyPatch, role: Role | None
) -> None:
    _hide(monkeypatch, "torch", "elftools")
    assert not _examine(root, role)["torch"].ok


# Whatever is installed


def test_distribution_whose_metadata_is_damaged_is_said(cli: Cli, tmp_path: Path) -> None:
    damaged = tmp_path / "path" / "nvidia_cutlass_dsl_libs_damaged-9.9.dist-info"
    damaged.mkdir(parents=True)
    (damaged / "METADATA").write_text("Name: nvidia-cutlass-dsl-libs-damaged\n")  # no version, which some Pythons take
    items = documents(cli("doctor", "--json", PYTHONPATH=os.fspath(damaged.parent)))
    assert [item["what"] for item in items if not item["ok"]] in (["DSL"], ["DSL versions"])


_FA4 = {f"flash_attn/cute/{name}.py": f"{name} = 4\n" for name in ("__init__", "interface", "softmax")}


def test_file_that_another_distribution_put_among_fa4s_is_named_and_not_wrong(cli: Cli, tmp_path: Path) -> None:
    write_distribution(tmp_path, "flash-attn-4", "4.0.0", _FA4)
    write_distribution(tmp_path, "flash-attn", "2.8.3", {"flash_attn/cute/old.py": ""})
    item = _item(cli, "provider's files", PYTHONPATH=os.fspath(tmp_path))
    assert item["ok"]
    old = tmp_path / "flash_attn" / "cute" / "old.py"
    assert item["found"] == f"others have put files into `flash_attn.cute`: `{old}` (of flash-attn 2.8.3)"
    assert "delete them" in item["mend"]


def test_file_of_fa4_that_another_distribution_replaced_is_wrong(cli: Cli, tmp_path: Path) -> None:
    write_distribution(tmp_path, "flash-attn-4", "4.0.0", _FA4)
    write_distribution(tmp_path, "flash-attn", "2.8.3", {"flash_attn/cute/interface.py": "interface = 2\n"})
    item = _item(cli, "provider's files", PYTHONPATH=os.fspath(tmp_path))
    assert not item["ok"]
    assert "interface.py` (of flash-attn 2.8.3)" in item["found"]
    assert "--force-reinstall" in item["mend"]


def test_look_that_raises_what_nobody_thought_of_is_an_answer(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError("a fault of the machine")

    monkeypatch.setattr("fa4_precompile.commands.doctor.open_run_time", fail)
    item = _examine(root, None)["run-time libraries"]
    assert (item.ok, item.found) == (False, "can't be looked at: ZeroDivisionError: a fault of the machine")


def test_driver_that_is_an_empty_library_is_none(cli: Cli, tmp_path: Path) -> None:
    subprocess.run(["cc", "-shared", "-o", tmp_path / "libcuda.so.1", "-x", "c", "/dev/null"], check=True)
    environment = {"LD_LIBRARY_PATH": os.fspath(tmp_path)}
    assert _item(cli, "GPU", **environment)["found"] == "no NVIDIA driver"
    assert "no NVIDIA GPU" in require_error(cli("targets", "--detect", **environment), 3)


# The provider's packages


def _carrier(site: Path, package: str, distribution: str) -> None:
    """Install something that looks like a package of FlashAttention-4's lineage."""
    folder = site.joinpath(*package.split("."))
    folder.mkdir(parents=True)
    listed = []
    for name in ("__init__.py", "interface.py", "flash_fwd_sm100.py"):
        (folder / name).touch()
        listed.append(f"{'/'.join(package.split('.'))}/{name},,")
    metadata = site / f"{distribution}-1.5.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n")
    (metadata / "RECORD").write_text("\n".join(listed) + "\n")


def test_packages_that_carry_flash_attention_are_named_with_their_distributions(cli: Cli, tmp_path: Path) -> None:
    _carrier(tmp_path / "site", "someengine.attention.cute", "someengine")
    done = cli("doctor", "--json", PYTHONPATH=str(tmp_path / "site"))
    found = [item["found"] for item in documents(done) if item["what"] == "provider"]
    assert [words.split(",")[0] for words in found] == [f"flash-attn-4 {DEFAULT.version()}", "someengine 1.5"]
    assert "`someengine.attention.cute`" in found[1]


def test_package_that_is_named_is_looked_at_and_no_other(cli: Cli, tmp_path: Path) -> None:
    _carrier(tmp_path / "site", "someengine.attention.cute", "someengine")
    environment = {"PYTHONPATH": str(tmp_path / "site")}
    named = _item(cli, "provider", "--module", "someengine.attention.cute", **environment)
    assert named["found"].startswith("someengine 1.5")
    assert named == _item(cli, "provider", FA4_PRECOMPILE_MODULE="someengine.attention.cute", **environment)
    assert not _item(cli, "provider", "--module", "nowhere.cute", **environment)["ok"]

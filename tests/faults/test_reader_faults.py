"""Whatever system call of a reader fails: it does not raise, and it does not answer as if nothing had been."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.failing import failing, passed_over

from command_line import finished_cache, write_spec
from fa4_precompile.cache import layout
from fa4_precompile.cache.claims import Claim
from fa4_precompile.cache.outcome import FAULTS, Finding, Miss, miss_of
from fa4_precompile.cache.record import Record
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.verify import Verification, blob_findings, verify_root
from fa4_precompile.commands.ls import list_
from fa4_precompile.commands.show import show
from fa4_precompile.commands.verify import verify
from fa4_precompile.errors import Fa4PrecompileError
from fa4_precompile.loader import looks
from fa4_precompile.loader.kernel import Kernel
from fa4_precompile.loader.resolve import Cache
from fa4_precompile.precompile import check
from fa4_precompile.precompile.check import CheckResult
from fa4_precompile.precompile.spec.spec import read_spec, target_book
from fa4_precompile.products import load
from fa4_precompile.providers.installed import installed_run_time
from fa4_precompile.providers.registry import DEFAULT
from loadable import B200, KEY, find_kernel, publish_loadable
from support import make_manifest, make_toolchain, numbered_record, publish_synthetic

_RECORD = numbered_record(0)
_MANIFEST = make_manifest(_RECORD)


def _or_fault(root: Root, look: Callable[[], object]) -> object:
    """Return what a method returns, or the miss that the error means that it is documented to raise."""
    try:
        return look()
    except FAULTS as error:
        return miss_of(error, root.path, "thing")


def _tells(answer: Any) -> bool:
    """Return whether an answer tells of something that is wrong."""
    if isinstance(answer, (Verification, CheckResult)):
        return bool(answer.findings)
    if isinstance(answer, list):
        return any(isinstance(item, Finding) for item in answer)
    return isinstance(answer, Miss)


_READERS: dict[str, Callable[[Root], object]] = {
    "find": lambda root: root.find(_RECORD.toolchain, _RECORD.id),
    "find_record": lambda root: root.find_record(_RECORD.toolchain, _RECORD.id),
    "read": lambda root: _or_fault(root, lambda: root.read(_RECORD.toolchain, _RECORD.id)),
    "blob": lambda root: _or_fault(root, lambda: root.blob(_RECORD)),
    "require_layout": lambda root: _or_fault(root, root.require_layout),
    "manifest": lambda root: _or_fault(
        root, lambda: root.manifest(_MANIFEST.toolchain, _MANIFEST.spec_digest, _MANIFEST.target)
    ),
    "records": lambda root: list(root.records()),
    "records_like": lambda root: list(root.records_like(_RECORD.id[:4])),
    "toolchains": lambda root: list(root.toolchains()),
    "manifests": lambda root: list(root.manifests()),
    "blob_findings": lambda root: blob_findings(root, [Claim.of(_RECORD)]),
    "verify_root": verify_root,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A cache of one synthetic kernel."""
    publish_synthetic(tmp_path / "cache", 1)
    return tmp_path / "cache"


@pytest.mark.parametrize("name", _READERS)
def test_reader_says_of_every_call_that_it_failed(path: Path, name: str) -> None:
    # A fresh object each time: nothing was found out before.
    assert passed_over(lambda: _READERS[name](Root(path)), _tells) == []


def _ended(command: Callable[..., None], *arguments: object) -> int:
    """Return what a command ends with."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            command(*arguments)
    except SystemExit as error:
        return int(str(error.code))
    except Fa4PrecompileError as error:
        return error.exit_code
    return 0


_COMMANDS: dict[str, Callable[[Path], int]] = {
    "ls": lambda path: _ended(list_, path, False, None, True),
    "show": lambda path: _ended(show, _RECORD.id, path, False, True),
    "verify": lambda path: _ended(verify, path, False, (), (), True),
}


@pytest.mark.parametrize("name", _COMMANDS)
def test_command_ends_with_no_zero_when_a_call_failed(path: Path, name: str) -> None:
    assert passed_over(lambda: _COMMANDS[name](path), bool) == []


def test_check_says_of_every_call_that_it_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished_cache(tmp_path / "cache", write_spec(tmp_path), make_toolchain(), "b200")
    spec = read_spec(write_spec(tmp_path), target_book())
    assert spec.digest  # which reads sources
    monkeypatch.setattr(check, "installed_toolchain", lambda *_: make_toolchain())
    known = installed_run_time(DEFAULT)
    monkeypatch.setattr(check, "installed_run_time", lambda _: known)
    monkeypatch.setattr(check, "dsl_parts", lambda: {"the DSL": True})  # Python keeps what it can't list as empty
    assert passed_over(lambda: check.check_spec(Root(tmp_path / "cache"), spec, spec.targets[0]), _tells) == []


@pytest.fixture
def loadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with a kernel that loads, in a process that knows what is installed."""
    publish_loadable(tmp_path / "root", 1)
    known = installed_run_time(DEFAULT)
    monkeypatch.setattr(looks, "installed_run_time", lambda _: known)
    find_kernel(Cache([tmp_path / "root"]))  # which imports what is needed
    monkeypatch.setattr(load, "open_run_time", lambda *_: None)
    return tmp_path / "root"


def test_job_gets_a_miss_or_its_kernel_whatever_call_failed(loadable: Path) -> None:
    assert passed_over(lambda: Cache([loadable]).resolve("fwd", KEY, B200), _tells) == []


def test_job_gets_its_kernel_from_the_next_root_whatever_call_failed_in_the_first(
    loadable: Path, tmp_path: Path
) -> None:
    publish_loadable(tmp_path / "next", 1)
    with failing(-1, 0) as made:
        find_kernel(Cache([loadable]))
    for at in range(len(made)):
        with failing(at, 5):
            assert isinstance(Cache([loadable, tmp_path / "next"]).resolve("fwd", KEY, B200), Kernel)


# A broken reader shows


class _PassesOver(Root):
    """Lists as `Path.glob` does, and this project did: what may not be read is passed over, all else raises."""

    def records(self) -> Iterator[Record | Finding]:
        for path in self._files(self.path / layout.RECORDS.split("/")[0]):
            yield Record.parse_file(str(path), path.read_bytes())

    def _files(self, folder: Path) -> Iterator[Path]:
        try:
            with os.scandir(folder) as entries:  # by this name: the `pathlib` of 3.10 has its own, which never fails
                found = [(Path(entry.path), entry.is_dir()) for entry in entries]
        except PermissionError:
            return
        for path, is_folder in found:
            yield from self._files(path) if is_folder else [path]


def test_reader_that_passes_over_what_it_cannot_list_is_found_out(path: Path) -> None:
    found = passed_over(lambda: list(_PassesOver(path).records()), _tells)
    assert any("EACCES: passed over" in line for line in found)
    assert any("OSError" in line for line in found)

"""The lock of a build: it saves double work, and nothing depends on it."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from fa4_precompile.cache import turns
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.toolchain import Toolchain
from fa4_precompile.precompile.spec.spec import Spec, parse_spec, target_book
from support import make_target, make_toolchain

_SPEC = "version: 1\nprovider: flash-attn-4\nkernels: [{name: a, pass: fwd, dtype: bf16, head_dim: 64}]\n"


class _Notes:
    """Takes notes of progress."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


@contextmanager
def _locked(root: Root, spec: Spec, toolchain: Toolchain) -> Iterator[_Notes]:
    notes = _Notes()
    with turns.one_build_at_a_time(Publisher(root), spec.digest, make_target(), toolchain.id, notes.note):
        yield notes


def test_build_whose_lock_never_comes_free_goes_on_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, spec = Root(tmp_path / "cache"), parse_spec("spec.yaml", _SPEC, target_book())
    Publisher(root).create()
    monkeypatch.setattr(turns, "_BUILD_TIMEOUT_S", 0.2)
    with _locked(root, spec, make_toolchain()) as first, _locked(root, spec, make_toolchain()) as second:
        assert first.notes == []
        assert len(second.notes) == 2
        assert f"process {os.getpid()} on" in second.notes[0]
        assert "is building this spec into this cache since" in second.notes[0]
        assert second.notes[0].endswith("; waiting for it")
        assert second.notes[1].endswith("; building without a lock")


def test_build_where_locks_do_not_work_goes_on_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, spec = Root(tmp_path / "cache"), parse_spec("spec.yaml", _SPEC, target_book())
    Publisher(root).create()

    def refuse(_descriptor: int, _operation: int) -> NoReturn:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    folder = root.path / "locks"
    with _locked(root, spec, make_toolchain()) as notes:
        assert notes.notes == [
            f"no lock can be had in `{folder}`: No locks available (ENOLCK); building without a lock"
        ]


def test_build_whose_lock_file_has_no_place_goes_on_without(tmp_path: Path) -> None:
    root, spec = Root(tmp_path / "cache"), parse_spec("spec.yaml", _SPEC, target_book())
    Publisher(root).create()
    (root.path / "locks").write_text("no folder")
    with _locked(root, spec, make_toolchain()) as notes:
        (note,) = notes.notes
        assert note.endswith("Not a directory (`locks`); building without a lock")

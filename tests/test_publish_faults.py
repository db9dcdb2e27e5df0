"""One system call of publishing that fails, at any point, and one signal, at any moment."""

from __future__ import annotations

import errno
import itertools
import os
import random
import signal
import time
from pathlib import Path
from typing import NoReturn

import pytest

from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.record import Record
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.verify import verify_root
from fa4_precompile.errors import CacheError, MachineError
from failing import OneFailure
from support import (
    SYNTHETIC_BLOB,
    blob_file,
    find_whole,
    make_manifest,
    make_record,
    make_toolchain,
    record_file,
    temporaries,
)

_CALLS = ("open", "write", "fsync", "fchmod", "rename", "mkdir", "chmod", "close", "listdir", "fstat", "read")
_NUMBERS = (errno.EIO, errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EINTR, errno.ESTALE)


def _publish_all(path: Path) -> None:
    """Do what a build does to the disk."""
    publisher = Publisher(Root(path))
    publisher.create()
    publisher.require_writable(make_toolchain().id, "a manifest's name")
    publisher.publish_toolchain(make_toolchain())
    publisher.publish(make_record(), SYNTHETIC_BLOB)
    publisher.sync()
    publisher.publish_manifest(make_manifest(make_record()))
    publisher.sync()


@pytest.mark.parametrize("number", _NUMBERS, ids=errno.errorcode.get)
@pytest.mark.parametrize("begun", [False, True], ids=["new", "there"])
def test_publish_whatever_call_fails_is_a_machine_error_and_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, begun: bool
) -> None:
    monkeypatch.setattr(os, "fsync", os.fstat)  # these hundreds of caches need not survive a power loss
    seen = set()
    for call in itertools.count():
        path = tmp_path / str(call) / "parent" / "cache"
        if begun:
            Publisher(Root(path)).create()
        descriptors = len(os.listdir("/proc/self/fd"))
        with pytest.MonkeyPatch.context() as patch:
            failure = OneFailure(patch, _CALLS, number, call)
            said = _error_of(path)
        if not failure.failed:
            break
        seen.add(failure.failed)
        if isinstance(said, CacheError):  # what is there already can't be read
            assert str(said) == f"`{path}`: can't be read: {os.strerror(number)}"
        else:
            assert said, f"call {call}, `{failure.failed}`, failed and nobody said so"
            assert f"`{path}`: {os.strerror(number)}" in str(said)
            assert said.hint
        assert temporaries(path) == [], f"call {call}, `{failure.failed}`"
        assert len(os.listdir("/proc/self/fd")) == descriptors, f"call {call}, `{failure.failed}`"
        assert _is_whole_or_absent(path), f"call {call}, `{failure.failed}`"
        _publish_all(path)
        assert find_whole(Root(path), make_record()) == (make_record(), SYNTHETIC_BLOB)
    assert seen >= {"open", "write", "fsync", "fchmod", "rename", "mkdir", "chmod", "close"}


def _error_of(path: Path) -> MachineError | CacheError | None:
    try:
        _publish_all(path)
    except (MachineError, CacheError) as error:
        return error
    return None


def _is_whole_or_absent(path: Path) -> bool:
    record = make_record()
    if record_file(path, record).exists():
        assert find_whole(Root(path), record) == (record, SYNTHETIC_BLOB)
    if blob_file(path, record).exists():
        assert blob_file(path, record).read_bytes() == SYNTHETIC_BLOB
    return not (path / "format.json").exists() or verify_root(Root(path)).findings == []


class _Stopped(BaseException):
    """What a signal's handler raises."""


@pytest.mark.chance
def test_publish_interrupted_at_any_moment_leaks_no_descriptor_and_no_file(root: Root, attempt: int) -> None:
    def stop(_number: int, _frame: object) -> NoReturn:
        raise _Stopped

    publisher, record = Publisher(root), make_record()
    start = time.monotonic()
    for _ in range(10):
        _publish_and_sync(publisher, record)
    usual = (time.monotonic() - start) / 10
    descriptors = len(os.listdir("/proc/self/fd"))
    moments, interrupted = random.Random(attempt), 0
    before = signal.signal(signal.SIGALRM, stop)
    try:
        while interrupted < 300:
            try:
                signal.setitimer(signal.ITIMER_REAL, moments.uniform(1e-6, usual))
                _publish_and_sync(publisher, record)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except _Stopped:
                interrupted += 1
    finally:
        signal.signal(signal.SIGALRM, before)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert temporaries(root.path) == []
    _publish_and_sync(publisher, record)
    assert find_whole(root, record) == (record, SYNTHETIC_BLOB)


def _publish_and_sync(publisher: Publisher, record: Record) -> None:
    publisher.publish(record, SYNTHETIC_BLOB)
    publisher.sync()

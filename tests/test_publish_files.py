"""Publishing files of another cache by the hundred: disks that fail, and sources that do."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from fa4_precompile.cache.contents import Entry
from fa4_precompile.cache.key import BlobDigest
from fa4_precompile.cache.layout import blob_path
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.store import Root
from fa4_precompile.errors import CacheError, CarryError, MachineError
from failing import OneFailure
from support import always, fail_call, overwrite, temporaries

_CALLS = ("open", "write", "fsync", "fchmod", "rename", "mkdir", "chmod", "close", "fstat")
_NUMBERS = (errno.EIO, errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EINTR)


def _file(number: int, size: int = 1000) -> tuple[Entry, bytes]:
    data = b"%d" % number + bytes(size)
    digest = hashlib.sha256(data).hexdigest()
    return Entry(blob_path(BlobDigest(digest)), digest, len(data)), data


def _there(root: Root, files: list[tuple[Entry, bytes]]) -> list[bool]:
    return [root.has_file(entry.path) for entry, _ in files]


@pytest.mark.parametrize("number", _NUMBERS, ids=errno.errorcode.get)
def test_publish_files_whatever_call_fails_is_said_and_leaves_nothing_half_written(tmp_path: Path, number: int) -> None:
    files = [_file(one) for one in range(4)]
    seen = set[str]()
    for sweep in range(10):  # which call is which is up to the threads
        if seen == set(_CALLS):
            return
        seen |= _fail_each_once(tmp_path / str(sweep), files, number)
    assert seen == set(_CALLS)


def _fail_each_once(folder: Path, files: list[tuple[Entry, bytes]], number: int) -> set[str]:
    """Let one call fail after the other, and return which were met."""
    seen = set()
    for call in itertools.count():
        root = Root(folder / str(call))
        Publisher(root).create()
        descriptors = len(os.listdir("/proc/self/fd"))
        said: MachineError | CacheError | None = None
        with pytest.MonkeyPatch.context() as patch:
            failure = OneFailure(patch, _CALLS, number, call)
            try:
                Publisher(root).publish_files(files)
            except (MachineError, CacheError) as error:
                said = error
        if not failure.failed:
            break
        seen.add(failure.failed)
        assert said, f"call {call}, `{failure.failed}`, failed and nobody said so"
        assert f"`{root.path}`: {os.strerror(number)}" in str(said)
        assert temporaries(root.path) == [], f"call {call}, `{failure.failed}`"
        assert len(os.listdir("/proc/self/fd")) == descriptors, f"call {call}, `{failure.failed}`"
        for (entry, data), is_there in zip(files, _there(root, files), strict=True):
            assert not is_there or root.file(entry) == data
        Publisher(root).publish_files(files)
        assert all(_there(root, files))
    return seen


def test_publish_files_appear_in_their_order_and_each_is_synced_before_it_does(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [_file(one) for one in range(300)]
    synced, named, told = set(), list[str](), list[Entry]()
    fsync, rename = os.fsync, os.rename

    def syncing(descriptor: int) -> None:
        synced.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def renaming(old: Path, new: Path) -> None:
        assert str(old) in synced
        rename(old, new)
        named.append(new.name)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(os, "rename", renaming)
    Publisher(root).publish_files(files, told.append)
    assert named == [entry.digest for entry, _ in files]
    assert told == [entry for entry, _ in files]
    assert {str((root.path / entry.path).parent) for entry, _ in files} <= synced
    assert [root.file(entry) for entry, _ in files] == [data for _, data in files]
    assert {(root.path / entry.path).stat().st_mode & 0o777 for entry, _ in files} == {0o444}


def test_publish_files_of_a_source_that_fails_keeps_those_before(root: Root) -> None:
    files = [_file(one) for one in range(100)]

    def source() -> Iterator[tuple[Entry, bytes]]:
        yield from files[:90]
        raise CarryError("source", "is gone")

    with pytest.raises(CarryError, match="is gone"):
        Publisher(root).publish_files(source())
    assert _there(root, files) == [True] * 90 + [False] * 10
    assert temporaries(root.path) == []


def test_publish_files_never_has_more_than_a_few_in_memory(root: Root) -> None:
    size, told, most = 8 << 20, list[Entry](), 0

    def source() -> Iterator[tuple[Entry, bytes]]:
        nonlocal most
        for number in range(30):
            most = max(most, number - len(told))
            yield _file(number, size)

    Publisher(root).publish_files(source(), told.append)
    assert 0 < most <= 9


def test_publish_files_of_a_full_disk_stops_there(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_call(monkeypatch, "fsync", errno.ENOSPC, always)
    asked = itertools.count()
    with pytest.raises(MachineError, match="No space left"):
        Publisher(root).publish_files(_file(number) for number in asked if number < 10_000)
    assert next(asked) < 1000
    assert temporaries(root.path) == []


def test_publish_files_replaces_what_is_damaged(root: Root) -> None:
    entry, data = _file(1)
    Publisher(root).publish_files([(entry, data)])
    overwrite(root.path / entry.path, b"damaged")
    Publisher(root).publish_files([(entry, data)])
    assert root.file(entry) == data


def test_publish_seal_comes_after_its_signature(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    named = list[str]()
    rename = os.rename

    def renaming(old: Path, new: Path) -> None:
        rename(old, new)
        named.append(new.name)

    monkeypatch.setattr(os, "rename", renaming)
    Publisher(root).publish_seal(b"contents\n", b"{}\n")
    assert named == ["seal.dsse.json", "seal"]
    assert (root.path / "seal").read_bytes() == b"contents\n"


class _Stopped(BaseException):
    """What a signal's handler raises."""


@pytest.mark.chance
def test_publish_files_interrupted_at_any_moment_leaks_no_descriptor_and_no_file(root: Root, attempt: int) -> None:
    def stop(_number: int, _frame: object) -> NoReturn:
        raise _Stopped

    files = [_file(one) for one in range(100)]
    begun = time.monotonic()
    Publisher(root).publish_files(files)
    usual = time.monotonic() - begun
    descriptors = len(os.listdir("/proc/self/fd"))
    moments = random.Random(attempt)
    before = signal.signal(signal.SIGALRM, stop)
    try:
        for _ in range(20):
            try:
                signal.setitimer(signal.ITIMER_REAL, moments.uniform(1e-6, usual))
                Publisher(root).publish_files(files)
            except _Stopped:
                pass
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert temporaries(root.path) == []
    assert [root.file(entry) for entry, _ in files] == [data for _, data in files]

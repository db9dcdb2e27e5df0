"""From what reading a cache raises to what a job is told (`Miss`) and what a listing shows (`Finding`)."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from fa4_precompile.cache.outcome import FAULTS, Finding, Miss, MissReason, finding_of, miss_of
from fa4_precompile.errors import CacheError, RecordError, UntrustedError

_WANTED = "record of kernel 0123"


def _system(number: int, path: object = None) -> OSError:
    return OSError(number, os.strerror(number), path)


@pytest.mark.parametrize(
    ("error", "reason", "says"),
    [
        (RecordError("records/a.json", "is damaged"), MissReason.DAMAGED, "/records/a.json`: is damaged"),
        (CacheError("/cache", "is no cache of layout 1"), MissReason.LAYOUT, "`/cache` is no cache of layout 1"),
        (_system(errno.EACCES), MissReason.UNREADABLE, "Permission denied"),
        (_system(errno.EIO, "records"), MissReason.UNREADABLE, "Input/output error (records)"),
        (_system(errno.ESTALE), MissReason.UNREADABLE, "Stale file handle"),
        (_system(errno.ENOENT), MissReason.ABSENT, "has no record of kernel 0123"),
        (_system(errno.ENOTDIR), MissReason.UNREADABLE, "Not a directory"),
    ],
    ids=str,
)
def test_miss_says_what_an_error_means(
    tmp_path: Path, error: RecordError | CacheError | OSError, reason: MissReason, says: str
) -> None:
    miss = miss_of(error, tmp_path, _WANTED)
    assert isinstance(error, FAULTS)
    assert (miss.reason, miss.path, miss.others) == (reason, "", ())
    assert says in miss.detail


def test_miss_of_what_is_not_trusted_names_its_path(tmp_path: Path) -> None:
    error = UntrustedError("/cache/records", "it is a symlink")
    assert miss_of(error, tmp_path, _WANTED) == Miss(MissReason.UNTRUSTED, "it is a symlink", "/cache/records")


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTDIR])
def test_miss_of_a_root_that_is_none_is_about_the_root(tmp_path: Path, number: int) -> None:
    (tmp_path / "file").write_text("no cache")
    root = tmp_path / ("nowhere" if number == errno.ENOENT else "file")
    assert miss_of(_system(number), root, _WANTED).reason is MissReason.LAYOUT


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RecordError("a.json", "is damaged"), Finding("here", MissReason.DAMAGED, "is damaged")),
        (CacheError("/cache", "is no cache"), Finding("here", MissReason.LAYOUT, "is no cache")),
        (_system(errno.EIO), Finding("here", MissReason.UNREADABLE, "can't be read: Input/output error")),
    ],
    ids=str,
)
def test_finding_says_what_an_error_means(
    tmp_path: Path, error: RecordError | CacheError | OSError, expected: Finding
) -> None:
    assert finding_of(error, tmp_path, "here") == expected


def test_finding_of_a_folder_that_is_not_trusted_is_one_for_all_that_is_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "records"
    error = UntrustedError(str(folder), "others can write it")
    findings = {finding_of(error, tmp_path, f"records/{number}.json") for number in range(3)}
    assert findings == {Finding("records", MissReason.UNTRUSTED, "is not trusted: others can write it", str(folder))}

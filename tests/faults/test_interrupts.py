"""Ctrl-C at any moment: a reader that is interrupted, however often, leaves no file open."""

from __future__ import annotations

import gc
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from fa4_precompile.cache.store import Root
from fa4_precompile.cache.trust import Trust
from fa4_precompile.cache.verify import verify_root
from support import join, numbered_record, publish_synthetic, start

_TIMES = 500


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _left_open(read: Callable[[], object], times: int) -> int:
    """Interrupt a reader so often, each time after some microseconds, and return how many files stay open."""
    read()
    gc.collect()
    before, chance = len(os.listdir("/proc/self/fd")), random.Random(1)
    handler = signal.signal(signal.SIGALRM, _interrupt)
    interrupted = 0
    try:
        while interrupted < times:
            try:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 4e-4))
                for _ in range(1000):  # not for ever: one that comes while an object is deleted is lost
                    read()
            except KeyboardInterrupt:
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    gc.collect()
    return len(os.listdir("/proc/self/fd")) - before


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A cache of one synthetic kernel."""
    publish_synthetic(tmp_path / "cache", 1)
    return tmp_path / "cache"


_READERS: dict[str, Callable[[Root], object]] = {
    "find": lambda root: root.find(numbered_record(0).toolchain, numbered_record(0).id),
    "records": lambda root: list(root.records()),
    "verify": verify_root,
}


@pytest.mark.chance
@pytest.mark.parametrize("name", _READERS)
def test_reader_that_is_interrupted_leaves_nothing_open(path: Path, name: str, effort: int) -> None:
    assert _left_open(lambda: _READERS[name](Root(path)), _TIMES * effort) == 0


class _OpensFirst:
    """Opens in one instruction and takes note of it in the next."""

    def __init__(self, path: Path, trust: Trust) -> None:
        del trust
        self._path = path / "format.json"

    def read(self) -> bytes:
        descriptor = os.open(self._path, os.O_RDONLY)
        try:
            return os.read(descriptor, 100)
        finally:
            os.close(descriptor)


def _left_open_by_the_first(path: Path) -> None:
    assert _left_open(_OpensFirst(path, Trust.OWN).read, _TIMES) > 0


def test_reader_that_takes_note_too_late_is_found_out(path: Path) -> None:
    join(start(_left_open_by_the_first, path))  # what it leaves open ends with its process

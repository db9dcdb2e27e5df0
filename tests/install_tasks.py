"""What the tests of installing and failing to install run in jobs."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import fa4_precompile
import fake_job
import loader_tasks
from fa4_precompile.errors import Fa4PrecompileError, LoadError
from fa4_precompile.loader.keep import JobKeeper
from fa4_precompile.loader.resolve import Cache
from fa4_precompile.products import load
from fa4_precompile.providers.dsl.compiler import CODE_MAKER
from fa4_precompile.providers.fa4.provider import FlashAttn4
from fa4_precompile.providers.recognizer import Recognized
from fake_job import Call, Report


def _refusing(error: Exception) -> Callable[..., NoReturn]:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise error

    return refuse


def _harms() -> dict[str, Callable[[], AbstractContextManager[Any]]]:
    dsl = getattr(sys.modules[CODE_MAKER[0]], CODE_MAKER[1])
    return {
        "no root": lambda: mock.patch.dict(os.environ),
        "run time": lambda: mock.patch.object(load, "open_run_time", _refusing(LoadError("libtvm_ffi.so", "gone"))),
        "provider": lambda: mock.patch.object(Path, "read_bytes", _refusing(PermissionError(13, "Permission denied"))),
        "slots": lambda: mock.patch.object(FlashAttn4, "slots_of", _refusing(LookupError("no slots"))),
        "DSL": lambda: mock.patch.object(dsl, CODE_MAKER[2], None),
    }


def _state() -> list[Any]:
    """Return what an installed loader changes of a process."""
    code_maker = getattr(getattr(sys.modules[CODE_MAKER[0]], CODE_MAKER[1]), CODE_MAKER[2])
    cute: Any = sys.modules["cutlass.cute"]
    return [list(sys.meta_path), code_maker, cute.compile, *(slot for _, slot in sorted(loader_tasks.slots().items()))]


def failed_install(root: Path, harm: str, first: str | None, calls: Sequence[Call]) -> tuple[str, bool, Report]:
    """Install a loader that works, if one is asked for, and a strict one that can't be; then make calls.

    Return the error, whether the process is as it was before, and a report on the calls.
    """
    if first is not None:
        fa4_precompile.install(root, on_miss=first)
    before = _state()
    error = ""
    with _harms()[harm]():
        try:
            fa4_precompile.install(root / "nowhere" if harm == "no root" else root, on_miss="error")
        except (Fa4PrecompileError, LookupError) as raised:
            error = str(raised)
    same = all(one is other for one, other in zip(before[1:], _state()[1:], strict=True)) and before[0] == _state()[0]
    return error, same, fake_job.report_on(calls)


def install_that_is_harmed(root: Path, harm: str, on_miss: str) -> tuple[list[str], bool]:
    """Install a loader that may compile, though something is wrong; return its warnings, and whether it has no slot."""
    own = loader_tasks.slots()
    with fake_job.warnings_of_the_loader() as warnings, _harms()[harm]():
        fa4_precompile.install(root, on_miss=on_miss)
    return warnings, all(slot is own[name] for name, slot in loader_tasks.slots().items())


def install_and_uninstall(root: Path, words: list[str], times: int) -> tuple[bool, int]:
    """Do it many times; return whether the process is as it was before, and how many more descriptors it has."""
    fa4_precompile.install(root, on_miss="warn")  # opens what stays open
    fa4_precompile.uninstall()
    before, descriptors = _state(), len(os.listdir("/proc/self/fd"))
    for number in range(times):
        fa4_precompile.install(root, on_miss=words[number % len(words)])
        if number % 3:
            fa4_precompile.uninstall()
    fa4_precompile.uninstall()
    after = _state()
    same = before[0] == after[0] and all(one is other for one, other in zip(before[1:], after[1:], strict=True))
    return same, len(os.listdir("/proc/self/fd")) - descriptors


def kernels_of_two_threads(root: Path) -> tuple[dict[str, object], bool]:
    """Have two threads miss a kernel each, compile it, and store it, one in the midst of the other.

    Return which object each thread's record would be about, and whether the compiler is given back in the end.
    """
    import cutlass.cute

    def compiled(kernel: object, *_: object) -> Any:
        return mock.Mock(export_to_c=True)

    noted: dict[str, object] = {}

    def note(_provider: object, kernel: object, _fields: object) -> NoReturn:
        noted[threading.current_thread().name] = kernel
        raise LookupError("no more of it is needed")

    keeper = JobKeeper(Cache([root]))
    steps = [threading.Event() for _ in range(4)]

    def work(name: str, mine: list[int]) -> None:
        keeper.wait("fwd", Recognized((name,)))
        steps[mine[0]].set()
        steps[mine[1]].wait()
        keeper.keep("fwd", Recognized((name,)), cutlass.cute.compile(f"kernel of {name}"), 1.0)
        steps[mine[2]].set()

    with (
        mock.patch.object(cutlass.cute, "compile", compiled),
        mock.patch.object(FlashAttn4, "selection", note),
    ):
        keeper.watch()
        # The second has missed before the first compiles, and compiles after the first has stored.
        first = threading.Thread(target=work, args=("first", [0, 1, 2]), name="first")
        second = threading.Thread(target=work, args=("second", [1, 2, 3]), name="second")
        first.start()
        steps[0].wait()
        second.start()
        first.join()
        second.join()
        keeper.close()
        return noted, cutlass.cute.compile is compiled

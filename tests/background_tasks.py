"""What the tests of the background run in processes of their own, with the stub of a driver. Prints what it found."""

from __future__ import annotations

import ctypes
import json
import os
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any
from unittest import mock

from fa4_precompile.loader.background import Background
from fa4_precompile.loader.cuda import load_if_captured
from fa4_precompile.loader.kernel import Kernel, Opened
from fa4_precompile.loader.resolve import Cache
from fa4_precompile.loader.wanted import Wanted

_LONG_S = 60.0


class Job:
    """A process with a cache and a thread that loads from it."""

    def __init__(self, root: Path, wanted: str = "") -> None:
        self.cache = Cache([root])
        self.cache.prepare()
        self.opened: list[Opened] = []
        self.said: list[str] = []
        self.background = Background(
            self.cache, Wanted.parse(wanted) if wanted else Wanted(), os.environ, self.opened.append, self.said.append
        )

    def start_cuda(self, has_context: bool) -> None:
        """Do what a job does that uses CUDA."""
        ctypes.CDLL("libcuda.so.1").stub_start(int(has_context))

    def look_up(self, number: int) -> Any:
        """Return what a lookup finds for a key."""
        return self.cache.resolve("fwd", (number,))


def threads() -> list[threading.Thread]:
    """Return the threads that load."""
    return [thread for thread in threading.enumerate() if thread.name == "fa4-precompile"]


def until(is_so: Any) -> None:
    """Wait until something is so."""
    end = time.monotonic() + _LONG_S
    while not is_so():
        assert time.monotonic() < end, "it does not come to it"
        time.sleep(0.002)


def load_then_start(root: Path, count: int, wanted: str = "") -> dict[str, Any]:
    """Have the thread open all, then start CUDA, then make a context; tell what the driver was asked until then."""
    job, notes = Job(root, wanted), Path(os.environ["STUB_NOTES"])
    job.background.start()
    until(lambda: len(job.opened) == count)
    before = _read(notes)
    job.start_cuda(False)
    time.sleep(0.2)
    without = _read(notes)
    job.start_cuda(True)
    until(lambda: not threads())
    return {"opened": len(job.opened), "before": before, "without": without, "after": _read(notes), "said": job.said}


def end(root: Path, seed: int, has_context: bool) -> dict[str, Any]:
    """End at some moment."""
    job, chance = Job(root), random.Random(seed)
    job.background.start()
    if has_context:
        job.start_cuda(True)
    time.sleep(chance.choice([0, 0.0005, 0.002, 0.01, 0.05]) * chance.random())
    return {}


def fork(root: Path, count: int, seed: int, has_context: bool) -> dict[str, Any]:
    """Fork at some moment, and look all up in the child, which ends as Python does; tell its exit code."""
    job, chance = Job(root), random.Random(seed)
    if has_context:
        job.start_cuda(True)
    job.background.start()
    time.sleep(chance.random() * 0.01)
    child = os.fork()
    if child == 0:
        assert not threads()
        assert all(isinstance(job.look_up(number), Kernel) for number in range(count))
        if seed % 2:
            job.background.stop()
        sys.exit(7)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {"child": code, "parent": sum(isinstance(job.look_up(number), Kernel) for number in range(count))}


def look_up_meanwhile(root: Path, count: int, seed: int) -> dict[str, Any]:
    """Look kernels up while the thread loads them; tell what they answer, and whether both have the same."""
    job = Job(root)
    import tvm_ffi  # noqa: F401 - as a job has by then

    numbers = list(range(count))
    random.Random(seed).shuffle(numbers)
    job.background.start()
    kernels = {number: job.look_up(number) for number in numbers}
    job.start_cuda(True)
    until(lambda: not threads())
    libraries = {kernel.reference.id: kernel.library for kernel in kernels.values()}
    return {
        "answers": [kernels[number].function() for number in range(count)],
        "agree": all(libraries[opened.reference.id] == opened.library for opened in job.opened),
        "after": _read(Path(os.environ["STUB_NOTES"])),
    }


def stop(root: Path) -> dict[str, Any]:
    """Stop it while it waits for a context, and tell how many threads there are then."""
    job = Job(root)
    job.background.start()
    until(lambda: job.opened)
    running = len(threads())
    job.background.stop()
    until(lambda: not threads())
    job.start_cuda(True)
    return {"running": running, "after": _read(Path(os.environ["STUB_NOTES"]))}


def capture(root: Path, number: int, is_capturing: bool) -> list[str]:
    """Do what a lookup does whose call is captured by torch, or not; return what was asked of the driver."""
    kernel = Job(root).look_up(number)
    sys.modules["torch"] = mock.Mock()
    sys.modules["torch"].cuda.is_current_stream_capturing.return_value = is_capturing
    load_if_captured(kernel)
    return [note for note in _read(Path(os.environ["STUB_NOTES"])) if "cuInit" not in note]


def _read(notes: Path) -> list[str]:
    return notes.read_text().splitlines() if notes.exists() else []


if __name__ == "__main__":
    task, root, *arguments = sys.argv[1:]
    print(json.dumps(globals()[task](Path(root), *map(json.loads, arguments))))  # noqa: T201

"""What the tests of the loader run in jobs: processes forked from one that has imported FlashAttention-4."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import random
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import fa4_precompile
import fake_job
from fa4_precompile import Stats
from fa4_precompile.errors import CacheError, MachineError
from fa4_precompile.loader.loader import installed_loader
from fa4_precompile.providers.loaded import loaded_slots
from fa4_precompile.providers.registry import DEFAULT
from fake_job import Call, Report
from pool_tasks import wait_for_company

NOBODY = 65534


def prepare() -> None:
    """Do the imports, in the process that the jobs are forked from, and what takes each a second to explain a miss."""
    fake_job.load()
    DEFAULT.named_key("fwd", ())
    importlib.import_module("fa4_precompile.loader.keep")  # nobody may not read an interpreter of root's


def become_nobody() -> None:
    """Be a user that owns no cache, where the tests run as root."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        os.environ.pop("TMPDIR")  # the folder of the pool, which is root's
        tempfile.tempdir = None


def job(
    calls: Sequence[Call],
    roots: Sequence[Path],
    on_miss: str = "error",
    environment: Mapping[str, str | None] | None = None,
    as_nobody: bool = False,
) -> Report:
    """Make calls with a loader; a variable of the environment that is None is unset."""
    for name, value in (environment or {}).items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    if as_nobody:
        become_nobody()
    fa4_precompile.install(*roots, on_miss=on_miss)
    return fake_job.report_on(calls)


def job_whose_start_is_heard(
    calls: Sequence[Call], root: Path, environment: Mapping[str, str | None]
) -> tuple[list[str], Report]:
    """Make calls with a strict loader, and return what it warned of when it was installed, too."""
    with fake_job.warnings_of_the_loader() as warnings:
        report = job(calls, [root], environment=environment)
    return [one for one in warnings if one not in report.warnings], report


# What the small cache holds, in the order of its spec: six kernels.
SMALL = (Call(causal=False), Call(causal=True), Call(causal=True, training=True))


def slots() -> dict[str, Any]:
    """Return the objects that FlashAttention has for its compile caches, by slot name."""
    return {slot.name: slot.cache for slot in loaded_slots(DEFAULT)}


def signature(function: Any) -> str:
    """Return what a kernel's function says of its parameters when it is called with none. The first takes seconds."""
    try:
        function()
    except TypeError as error:
        return str(error)
    raise AssertionError("a kernel takes no parameters")


def install_twice_and_uninstall(empty: Path, root: Path) -> dict[str, Any]:
    """Install a loader, and another one, and remove it; tell of which slots what is true, and what the second did."""
    own = slots()
    fa4_precompile.install(empty, on_miss="error")
    first = slots()
    fa4_precompile.install(root, on_miss="error")
    second = slots()
    report = fake_job.report_on(SMALL)
    fa4_precompile.uninstall()
    left = slots()
    return {
        "slots": set(own),
        "first": {name for name in own if first[name] is not own[name]},
        "second": {name for name in own if second[name] is not own[name] and second[name] is not first[name]},
        "given back": {name for name in own if left[name] is own[name]},
        "report": report,
        "afterwards": fa4_precompile.stats(),
    }


def compile_with_one_loader_after_another(root: Path, call: Call) -> tuple[Report, Report]:
    """Have a call compiled, and make it again with a new loader, and nothing to compile with; report on both."""
    fa4_precompile.install(root, on_miss="compile")
    first = fake_job.report_on([call])
    fa4_precompile.install(root, on_miss="compile")
    with _no_compiler():
        return first, fake_job.report_on([call])


@contextmanager
def _no_compiler() -> Iterator[None]:
    import cutlass.cute

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("something is compiled")

    real, cutlass.cute.compile = cutlass.cute.compile, refuse
    yield
    cutlass.cute.compile = real


def report_of_two_loaders(root: Path, file: Path) -> None:
    """Install a loader that is to report, and another one, in a process that ends as Python's own children do."""

    def install_twice() -> None:
        for _ in range(2):
            fa4_precompile.install(root, on_miss="error", report=file)
        fake_job.make(SMALL[0])

    child = multiprocessing.get_context("fork").Process(target=install_twice)
    child.start()
    child.join()


def look_up_in_threads(root: Path, count: int) -> tuple[list[tuple[str, set[str]]], Stats]:
    """Have threads look up all keys of the small cache at once, each in an order of its own.

    Return for each key its slot, and the signatures of the functions that there are for it.
    """
    keys = keys_of_small(root)
    fa4_precompile.install(root, on_miss="error")
    ours = slots()
    found: dict[int, set[Any]] = {number: set() for number in range(len(keys))}
    start = threading.Barrier(count)

    def look_up(thread: int) -> None:
        start.wait()
        # The first is the same for all; the others follow in an order of the thread's own.
        for number in [0, *random.Random(thread).sample(range(len(keys)), len(keys))]:
            name, key = keys[number]
            assert key in ours[name]
            found[number].add(ours[name][key])

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(look_up, range(count)))
    assert [len(functions) for functions in found.values()] == [1] * len(keys)
    signatures = [(keys[number][0], set(map(signature, functions))) for number, functions in found.items()]
    return signatures, fa4_precompile.stats()


def look_up_one_key_in_threads(root: Path, count: int) -> Stats:
    """Have threads miss one key in the loader's memory all before one of them has it."""
    keys = keys_of_small(root)
    fa4_precompile.install(root, on_miss="error")
    (name, key), slot = keys[0], slots()[keys[0][0]]
    loader = installed_loader()
    assert loader is not None
    cache = loader.served[0].cache
    find, together = cache.resolve, threading.Barrier(count)

    def find_together(*arguments: Any, **more: Any) -> Any:
        together.wait()
        return find(*arguments, **more)

    with mock.patch.object(cache, "resolve", find_together), ThreadPoolExecutor(count) as pool:
        assert all(pool.map(lambda _: key in slot, range(count))), name
    return fa4_precompile.stats()


def keys_of_small(root: Path) -> list[tuple[str, object]]:
    """Return what the calls of the small cache look up. The loader that has them in its memory stays installed."""
    fa4_precompile.install(root, on_miss="error")
    fake_job.report_on(SMALL)
    return [(name, key) for name, slot in slots().items() for key in slot]


def look_up_in_forks(root: Path) -> list[int]:
    """Return how many kernels a child resolves that is forked before the first lookup, and one after half of them."""
    keys = keys_of_small(root)
    fa4_precompile.install(root, on_miss="error")
    ours = slots()
    resolved = []
    for half in (keys[:3], keys[3:]):
        resolved.append(_in_fork(lambda: sum(key in ours[name] for name, key in keys)))
        assert all(key in ours[name] for name, key in half)
    return resolved


def look_up_in_fork_beside_a_thread(root: Path, lacking: Path, on_miss: str, slow: str) -> int:
    """Return how many kernels a child finds that is forked while a thread is in a slow function of ours.

    The thread looks up a kernel that the second cache lacks; the child looks up all.
    """
    keys = keys_of_small(root)
    fa4_precompile.install(lacking, on_miss=on_miss)
    ours = slots()
    (post,) = [key for name, key in keys if name == "bwd_post"]
    inside, go_on = threading.Event(), threading.Event()

    def wait(*_: object) -> NoReturn:
        inside.set()
        go_on.wait()
        raise MachineError("nothing is found out", "")

    thread = threading.Thread(target=lambda: post in ours["bwd_post"])
    with mock.patch(slow, wait):
        thread.start()
        inside.wait()
    try:
        return _in_fork(lambda: sum(key in ours[name] for name, key in keys))
    finally:
        go_on.set()
        thread.join()


def _in_fork(count: Callable[[], int]) -> int:
    """Return what a forked child counts, less than 255; that is if it raises. It is killed if it hangs."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(120)
        try:
            os._exit(count())
        finally:
            os._exit(255)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@dataclass(frozen=True)
class Preloaded:
    """What `preload` did: the ids of the kernels that it returned, or what it raised; and the loader's report."""

    kernels: Sequence[str]
    error: CacheError | None
    report: Report


def preload(root: Path, on_miss: str, spec: str | None, environment: Mapping[str, str]) -> Preloaded:
    """Preload the kernels of a cache."""
    os.environ.update(environment)
    fa4_precompile.install(root, on_miss=on_miss)
    kernels: Sequence[str] = ()
    error = None
    with fake_job.warnings_of_the_loader() as warnings:
        try:
            kernels = sorted(kernel.reference.id for kernel in fa4_precompile.preload(spec))
        except CacheError as raised:
            error = raised
    return Preloaded(kernels, error, Report(asdict(fa4_precompile.stats()), (), warnings))


def preload_and_look_up(root: Path, on_miss: str, spec: str | None) -> Preloaded:
    """Preload the kernels of a cache, move it away, and make the calls that need them."""
    preloaded = preload(root, on_miss, spec, {})
    root.rename(root.with_name("away"))
    return Preloaded(preloaded.kernels, preloaded.error, fake_job.report_on(SMALL))


def job_in_company(folder: Path, count: int, calls: Sequence[Call], root: Path) -> Report:
    """Make calls as a user that does not own the cache, as soon as there are so many that do."""
    become_nobody()
    wait_for_company(str(folder), count)
    return job(calls, [root])


def job_with_a_fault(owner: type, method: str, root: Path, on_miss: str, call: Call) -> Report | str:
    """Make a call with a loader one of whose methods fails in a way that nobody foresaw; return what it raised."""
    fa4_precompile.install(root, on_miss=on_miss)
    with mock.patch.object(owner, method, side_effect=RuntimeError("nobody foresaw this")):
        try:
            return fake_job.report_on([call])
        except RuntimeError as error:
            return str(error)

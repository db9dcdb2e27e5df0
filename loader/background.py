"""Loading kernels while the job does other things: in a thread, from the import of the provider on.

Why it is done so, and what a fork, a capture and the end of the process are to it: docs/decisions/0021.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from ..cache.outcome import Miss
from ..errors import LoadError, MachineError
from ..providers.dsl.driver import Device
from ..providers.dsl.installation import ARCH_VARIABLE
from .cuda import Cuda
from .kernel import Kernel, Opened
from .preload import Candidate, candidates
from .resolve import Cache
from .wanted import Wanted

_LOG = logging.getLogger("fa4_precompile")

_Answer = TypeVar("_Answer")

# Between two looks for a CUDA context, which take some microseconds: at first, and in a process that never has one.
_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0
_PATIENCE_S = 2.0  # of the end of the process, for a cubin that is on its way onto the GPU


class Background:
    """A thread that loads the kernels of a cache, and their cubins as soon as the process has a CUDA context.

    Guarantees
        It initializes no CUDA, makes no context, and imports nothing. Nothing waits for it, but for the end of the
        process, while a cubin is being loaded. Whatever fails is left to the lookups, which say it as they do without.
    Concurrency
        It holds no lock. It shares what it has loaded with the lookups through the `Cache`, where either finds what the
        other has done. A forked child has no such thread, and needs none.
    """

    def __init__(
        self,
        cache: Cache,
        wanted: Wanted,
        environment: Mapping[str, str],
        opened: Callable[[Opened], None],
        warn: Callable[[str], None],
    ) -> None:
        self._cache = cache
        self._wanted = wanted
        self._arch = environment.get(ARCH_VARIABLE, "")
        self._opened = opened
        self._warn = warn
        self._is_stopped = False
        self._is_in_the_driver = False
        self._thread = threading.Thread(target=self._run, name="fa4-precompile", daemon=True)

    def start(self) -> None:
        """Begin, unless the system has no thread left for it."""
        atexit.register(self._end)
        try:
            self._thread.start()
        except RuntimeError:
            _LOG.debug("no kernel is preloaded", exc_info=True)
            atexit.unregister(self._end)

    def stop(self) -> None:
        """Have it end with the kernel that it is at. Nobody waits for that."""
        self._is_stopped = True

    def _end(self) -> None:
        # The driver must not be taken down around a thread that is in it.
        self._is_stopped = True
        if self._is_in_the_driver:
            self._thread.join(_PATIENCE_S)

    def _run(self) -> None:
        try:
            self._load()
        except MachineError as error:
            _LOG.debug("no kernel is preloaded: %s", error)
        except Exception:  # the lookups say what is wrong
            _LOG.debug("kernels are no longer preloaded", exc_info=True)
        finally:
            atexit.unregister(self._end)

    def _load(self) -> None:
        cuda = _driver()
        if cuda is None:
            self._open(self._sure())
            return
        if not self._asked(cuda.is_started):
            likely = self._likely()
            if likely is None:
                return
            self._open(likely)
        context = self._wait_for_a_context(cuda)
        if context is not None:
            self._initialize(cuda, context, self._open(self._sure()))

    def _sure(self) -> Sequence[Candidate]:
        """Return what is wanted for the device of this process, which may be asked for."""
        found = candidates(self._cache, self._wanted, self._cache.device)
        self._say(found.problem)
        return found.kernels

    def _likely(self) -> Sequence[Candidate] | None:
        """Return what is wanted if all was built for one kind of device, as it can't be asked yet which there is.

        None if there is nothing, whichever it is.
        """
        if self._wanted.report is not None:
            found = candidates(self._cache, self._wanted, _unasked("", 0))
            self._say(found.problem)
            return found.kernels or None
        manifests = [found for _, found in self._cache.fitting_manifests() if self._wanted.spec in (None, found.spec)]
        if not manifests:
            why = "" if self._cache.has_toolchain else f"; {self._cache.why_unfit}"
            self._say(f"there is no manifest of `{self._wanted.spec}`{why}")
            return None
        kinds = {(found.target.arch, found.target.sms) for found in manifests}
        kinds = {(arch, sms) for arch, sms in kinds if self._arch in ("", arch)}
        if len(kinds) != 1:
            return []
        ((arch, sms),) = kinds
        return candidates(self._cache, self._wanted, _unasked(arch, sms)).kernels

    def _say(self, problem: str) -> None:
        """Say what is wrong with what somebody has named."""
        if problem and self._wanted.name:
            self._warn(f"can't preload: {problem}; the kernels are looked up when they are called")

    def _open(self, wanted: Iterable[Candidate]) -> list[Opened | Kernel]:
        found: list[Opened | Kernel] = []
        for candidate in wanted:
            if self._is_stopped:
                break
            is_new = not self._cache.has(candidate.kernel)
            kernel = self._cache.open(candidate.kernel, candidate.places)
            if isinstance(kernel, Miss):
                _LOG.debug("kernel %s is not preloaded: %s", candidate.kernel, kernel.detail)
                continue
            found.append(kernel)
            if is_new and isinstance(kernel, Opened):
                self._opened(kernel)
        return found

    def _wait_for_a_context(self, cuda: Cuda) -> int | None:
        """Return a GPU that has a context; None if the thread is to stop."""
        pause = _PAUSE_S
        while not self._is_stopped:
            contexts = self._asked(cuda.contexts)
            if contexts:
                return contexts[0]
            time.sleep(pause)
            pause = min(pause * 1.02, _LONGEST_PAUSE_S)
        return None

    def _initialize(self, cuda: Cuda, context: int, kernels: Sequence[Opened | Kernel]) -> None:
        device = self._cache.device

        def initialize_all() -> None:
            with cuda.joined(context) as is_joined, cuda.outside_captures() as is_outside:
                for kernel in kernels if is_joined and is_outside else ():
                    if self._is_stopped:
                        return
                    try:
                        if kernel.is_for(device):  # a report can be another machine's
                            kernel.initialize()
                    except LoadError as error:
                        _LOG.debug("kernel %s is not on the GPU: %s", kernel.reference.id, error)

        self._asked(initialize_all)

    def _asked(self, ask: Callable[[], _Answer]) -> _Answer | None:
        """Return what the driver answers; None if the process ends, which waits for what has begun."""
        self._is_in_the_driver = True  # before the other is looked at; `_end` does it the other way round
        try:
            return None if self._is_stopped else ask()
        finally:
            self._is_in_the_driver = False


def _unasked(arch: str, sms: int) -> Device:
    return Device(0, "not asked yet", arch, sms)


def _driver() -> Cuda | None:
    try:
        return Cuda()
    except OSError:
        return None

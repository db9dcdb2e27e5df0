"""Publishing what a job compiled: `on_miss="store"`.

Nothing here raises into the job: a cache that can't be written, a missing C compiler, a lock that does not work are
said once, and the job goes on with what it compiled.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from typing import Any

from ..cache.key import display, encode_key, kernel_id, symbol_of
from ..cache.lock import Lock, NoLock, NoLocksHere
from ..cache.origin import Origin
from ..cache.publish import Publisher
from ..cache.record import Record
from ..cache.store import Root
from ..cache.target import Target, host_machine
from ..cache.toolchain import Toolchain
from ..errors import Fa4PrecompileError
from ..products.product import make_product
from ..products.trial import Trial
from ..providers.dsl.compiler import CUTE, Compiler
from ..providers.dsl.installation import require_runtime_library
from ..providers.installed import installed_toolchain
from ..providers.recognizer import Recognized
from .kernel import Kernel
from .resolve import Cache
from .voice import warn

_LOG = logging.getLogger("fa4_precompile")

# As long as ten of the slowest kernels take. Another rank that is not done by then is stopped, or gone.
_WAIT_S = 120.0

_SPEC = "(a job)"


class JobKeeper:
    """Publishes to the first root that can be written, one process of a machine at a time for each kernel.

    Guarantees
        A process that misses a kernel while another one of this machine compiles it waits for that one's, at most two
        minutes. Whatever goes wrong, the job compiles as it would without us.
    Not guaranteed
        That a kernel is compiled once where the lock file does not work (some network filesystems).
    """

    def __init__(self, cache: Cache, wait_seconds: float = _WAIT_S) -> None:
        self._cache = cache
        self._wait_seconds = wait_seconds
        self._here = _Here()
        self._watched: tuple[Any, Compiler, Any] | None = None
        self._said: set[str] = set()
        self._locks_work = True
        # Found out once. No `cached_property`: up to Python 3.11 it holds a lock, which a fork can leave held.
        self._writable: list[Publisher | None] = []
        self._installed: Toolchain | None = None
        self._has_library = False

    def watch(self) -> None:
        """Take note of what the provider hands to its compiler: once for the process, for each thread by itself."""
        cute: Any = sys.modules.get(CUTE)
        if self._watched is None and cute is not None:
            real = cute.compile
            cute.compile = Compiler(real, self._note)
            self._watched = cute, cute.compile, real

    def close(self) -> None:
        """Give the provider its compiler back, unless somebody else has put another one there meanwhile."""
        if self._watched is not None:
            cute, ours, real = self._watched
            if cute.compile is ours:
                cute.compile = real
            self._watched = None

    def wait(self, slot: str, recognized: Recognized) -> Kernel | None:
        """Return a kernel that another process publishes meanwhile, or None if this one is to compile it."""
        self._end()  # of a compile that failed, as nobody told us of it
        try:
            publisher = self._publisher
            if publisher is None or recognized.problem is not None:
                return None
            if self._locks_work:
                text = encode_key(recognized.key, passing=self._cache.provider.passing)
                path = publisher.lock_path("job", self._toolchain.id, self._cache.device.arch, slot, text)
                self._here.lock = Lock(path, f"compiling a kernel of slot `{slot}`")
                self._here.lock.acquire(_LOG.info, self._wait_seconds)
            self._cache.refresh()
            kernel = self._cache.resolve(slot, recognized.key, facts=recognized.facts)
            if isinstance(kernel, Kernel):
                self._end()
                return kernel
        except NoLocksHere as error:
            self._locks_work = False
            self._say(f"{error}; each process compiles what it misses")
        except NoLock as error:
            self._say(f"{error}; it is compiled here")
        except Exception as error:
            self._say(f"kernels of this job can't be shared: {_sentence(error)}")
        self._here.is_compiling, self._here.kernel = True, None
        return None

    def keep(self, slot: str, recognized: Recognized, function: Any, seconds: float) -> str | None:
        """Publish a compiled kernel and return its id; None if it could not be published."""
        try:
            publisher = self._publisher
            if publisher is None or not hasattr(function, "export_to_c"):
                return None
            if recognized.problem is not None:
                raise recognized.problem
            record, blob, origin = self._product(slot, recognized, function, seconds)
            publisher.publish_toolchain(self._toolchain)
            publisher.publish(record, blob, origin)
            self._publish_library(publisher)
            publisher.sync()
            return record.id
        except Exception as error:
            self._say(f"a kernel of slot `{slot}` was compiled and can't be stored: {_sentence(error)}")
            return None
        finally:
            self._end()

    def _publish_library(self, publisher: Publisher) -> None:
        """Publish the run-time library, once a process; a cache without it serves jobs that have the DSL."""
        if not self._has_library:
            self._has_library = True
            try:
                publisher.publish_library(self._toolchain.id, require_runtime_library())
            except Exception as error:
                self._say(f"the run-time library can't be stored: {_sentence(error)}")

    def _note(self, real: Any, kernel: object, *arguments: Any, **options: Any) -> Any:
        if self._here.is_compiling and self._here.kernel is None:  # the first that a miss leads to
            self._here.kernel = kernel
        return real(kernel, *arguments, **options)

    @property
    def _publisher(self) -> Publisher | None:
        if not self._writable:
            self._writable.append(self._find_publisher())
        return self._writable[0]

    def _find_publisher(self) -> Publisher | None:
        problems = [] if self._cache.roots else ["the kernels come from installed wheels, and no cache is named"]
        for path in self._cache.roots:
            publisher = Publisher(Root(path, self._cache.trust))
            try:
                publisher.create()
                publisher.require_writable(self._toolchain.id)
                return publisher
            except Fa4PrecompileError as error:
                problems.append(str(error))
        self._say(f"no root can be written, so what is compiled is not stored: {'; '.join(problems)}")
        return None

    @property
    def _toolchain(self) -> Toolchain:
        if self._installed is None:
            self._installed = installed_toolchain(self._cache.provider)
        return self._installed

    @property
    def _target(self) -> Target:
        device = self._cache.device
        torch: Any = sys.modules["torch"]
        return Target(
            name=re.sub(r"[^a-z0-9]+", "-", device.name.lower()).strip("-"),
            arch=device.arch,
            sms=device.sms,
            cuda=int((torch.version.cuda or "13").split(".")[0]),
            machine=host_machine(),
        )

    def _product(
        self, slot: str, recognized: Recognized, function: Any, seconds: float
    ) -> tuple[Record, bytes, Origin]:
        provider, frame, key = self._cache.provider, sys._getframe(1), recognized.key
        named = provider.named_key(slot, key)
        fields = {name: display(value) for name, value in named.items()}
        target, text = self._target, encode_key(key, list(named), provider.passing)
        # What a compile asks the device is known in a builder, which starts afresh for each kernel. Here an earlier
        # answer may have been remembered, so the kernel is for devices of this number of SMs, whether it asked or not.
        facts = {**recognized.facts, "sms": target.sms}
        identity = kernel_id(self._toolchain.id, target.arch, slot, text, facts)
        selection = provider.selection(self._here.kernel, fields)
        by_name = provider.launches_by_name(slot)
        product = make_product(function, identity, target, facts, selection, seconds, by_name)
        with Trial() as trial:
            trial.require_loads(product.blob, symbol_of(identity))
        record = product.record(
            toolchain=self._toolchain.id,
            arch=target.arch,
            slot=slot,
            key=text,
            key_fields=fields,
            modifiers=recognized.modifiers,
        )
        origin = Origin(
            toolchain=record.toolchain,
            kernel=record.id,
            target=target,
            spec=_SPEC,
            variant=provider.observe(frame) or {},
            runtime_env=provider.job_switches(os.environ),
            compile_seconds=product.compile_seconds,
        )
        return record, product.blob, origin

    def _end(self) -> None:
        lock, self._here.lock = self._here.lock, None
        self._here.is_compiling, self._here.kernel = False, None
        if lock is not None:
            lock.release()

    def _say(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            warn(message)


class _Here(threading.local):
    """What a thread is about to compile: the lock that it holds, and the kernel object, once the provider has it."""

    lock: Lock | None = None
    is_compiling = False
    kernel: object = None


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, Fa4PrecompileError) else f"{type(error).__name__}: {error}"

"""How a loader meets a miss, and what all that it serves in a process has in common."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..cache.target import Target
from ..errors import Fa4PrecompileError
from ..providers.recognizer import Recognized
from . import voice
from .absence import Absence
from .choices import OnMiss
from .kernel import Kernel
from .recording import Recording
from .resolve import Cache
from .stats import Counts
from .suspicion import Suspicion
from .wanted import Preloading

_LOG = logging.getLogger("fa4_precompile")


class Keeper(Protocol):
    """Who publishes what a job compiles, for `OnMiss.STORE`. None of its methods raises."""

    def watch(self) -> None:
        """Take note from now on of what the provider hands to its compiler."""

    def close(self) -> None:
        """End that."""

    def wait(self, slot: str, recognized: Recognized) -> Kernel | None:
        """Return a kernel that another process publishes meanwhile, or None if this one is to compile it."""

    def keep(self, slot: str, recognized: Recognized, function: Any, seconds: float) -> str | None:
        """Publish a compiled kernel and return its id; None if it could not be published."""


@dataclass(frozen=True)
class Behavior:
    """How a loader meets a miss.

    Attributes:
        on_miss: what happens.
        environment: the job's variables.
        attached: called once, when a provider is in the process and its slots are ours.
        keeper: makes who publishes for a cache, for `OnMiss.STORE`.
        absence: which packages are imported without their compiler; None if all have it.
        preloading: which kernels are loaded before they are looked up, and when; None for none.
        known_bad: a list of known-bad toolchains of the user's own.
        record: folder in which it is written down what is looked up.
        fake: the target that calls are made for with tensors that have no memory, on a machine with no GPU; then no
            cache is asked, and nothing compiled.
    """

    on_miss: OnMiss
    environment: Mapping[str, str]
    attached: Callable[[Counts], None] | None = None
    keeper: Callable[[Cache], Keeper] | None = None
    absence: Absence | None = None
    preloading: Preloading | None = None
    known_bad: Path | None = None
    record: Path | None = None
    fake: Target | None = None


class Shared:
    """What is one in a process, whatever number of providers it has: settings, counts, and what was said already."""

    def __init__(self, behavior: Behavior) -> None:
        self.behavior = behavior
        self.counts = Counts()
        self.undo = ExitStack()  # what puts back what was there, the last first: one may stand in for another
        self._said: set[object] = set()
        self.suspicion = Suspicion(behavior.known_bad, self.say_once)
        self.recording = None
        if behavior.record is not None:
            self.recording = Recording(
                behavior.record, behavior.fake, behavior.environment, lambda what: self.say_once(what, what)
            )

    @property
    def strict(self) -> bool:
        """Whether nothing may be compiled."""
        return self.behavior.on_miss is OnMiss.ERROR

    def say_once(self, what: object, message: str) -> None:
        """Warn, unless `what` was said already."""
        if what not in self._said:
            self._said.add(what)
            voice.warn(message)

    @contextmanager
    def harmless(self, can_compile: bool = True) -> Iterator[None]:
        """Keep a fault of ours from a job that is not strict: it compiles as without us, and is told so once.

        From one that can't compile nothing is kept.
        """
        try:
            yield
        except Exception as error:
            if self.strict or not can_compile:
                raise
            what = str(error) if isinstance(error, Fa4PrecompileError) else f"{type(error).__name__}: {error}"
            self.say_once(what, f"{what}; kernels are compiled as without fa4-precompile")

    @contextmanager
    def unharmed(self) -> Iterator[None]:
        """Go on after a fault of the provider's own cache: the kernel is in our hands, or will be compiled."""
        try:
            yield
        except Exception:
            _LOG.debug("the provider's own cache failed", exc_info=True)

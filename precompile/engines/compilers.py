"""The workers of an engine in the place of this machine's fork servers, for one build."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from types import TracebackType

from ...cache.store import Root
from ...cache.target import Target
from ...cache.toolchain import Toolchain
from ...providers.call import Environment
from ..compile.compilers import Compilers
from ..compile.worker import compile_kernel
from ..known_bad import Guard
from ..publication import PublishThere, check_product
from ..spec.spec import Spec
from .choice import EngineChoice
from .engine import open_engine
from .errand import Kit
from .pool import EnginePool


class EngineCompilers(Compilers):
    """Connects to an engine, and plans and compiles there. Use it in a `with` statement.

    `most` is how many tasks the engine gets at a time; None: all. `say` is told, by another thread, of workers that are
    lost, wrong or not fit. Raises as `open_engine`.
    """

    def __init__(
        self,
        choice: EngineChoice,
        spec: Spec,
        target: Target,
        toolchain: Toolchain,
        root: Root,
        most: int | None,
        time_limit: float | None,
        say: Callable[[str], None],
        guard: Guard,
    ) -> None:
        super().__init__(spec.provider, target, toolchain, most or 1, time_limit)
        limits = {} if time_limit is None else {compile_kernel: time_limit}
        self.products_come_here = not choice.workers_publish
        there = PublishThere(root.path.resolve(), root.trust, spec.name, guard)
        self._pool = EnginePool(
            open_engine(choice.name),
            Kit(self.pinned, toolchain, spec.sources.digests, limits),
            most,
            {compile_kernel: there.check if choice.workers_publish else check_product},
            {compile_kernel: there} if choice.workers_publish else {},
            say,
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()

    @property
    def jobs(self) -> int:
        """How many tasks run at a time, as far as that is known just now."""
        return self._pool.jobs

    def rounds(self, environments: Iterable[Environment]) -> list[Sequence[Environment]]:
        """Return all sets of switches at once: a worker starts the fork servers that it needs."""
        return [sorted(set(environments))]

    def pool(self, environment: Environment = ()) -> Executor:
        """Return the executor whose provider sees these switches."""
        return self._pool.executor(environment)

    def warm_up(self, environments: Iterable[Environment]) -> None:
        """Do nothing: a worker has its fork servers from the first task on, and keeps them for a while."""

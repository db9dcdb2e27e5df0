"""The pools of one build: a fork server for each environment that the spec's demands need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from types import TracebackType

from ...cache.target import Target
from ...cache.toolchain import Toolchain
from ...errors import MachineError
from ...providers.call import Environment
from ...providers.dsl.installation import codegen_variables
from ...providers.dsl.installation import pinned_environment as dsl_environment
from ...providers.protocol import Provider
from .pool import ForkServerPool, TaskFailed
from .worker import Pinned, compile_kernel, compiled_sm, load_provider


class Compilers:
    """Starts fork servers when they are needed, and ends them all. Use it in a `with` statement.

    A provider reads some of its switches when it is imported, so each set of switches has a process of its own.
    """

    products_come_here = True
    """Whether this process publishes what is compiled."""

    def __init__(
        self,
        provider: Provider,
        target: Target,
        toolchain: Toolchain,
        jobs: int,
        time_limit: float | None = None,
    ) -> None:
        self.provider = provider
        self.target = target
        self.pinned = Pinned(provider, target)
        self.toolchain = toolchain
        self._jobs = jobs
        self._time_limit = time_limit
        self._pools: dict[Environment, ForkServerPool] = {}

    def __enter__(self) -> Compilers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pool in self._pools.values():
            pool.shutdown(wait=kind is None, cancel_futures=kind is not None)

    @property
    def jobs(self) -> int:
        """How many tasks run at a time."""
        return self._jobs

    def rounds(self, environments: Iterable[Environment]) -> list[Sequence[Environment]]:
        """Return which sets of switches are compiled for at the same time: here one, as each pool has all the cores."""
        return [[environment] for environment in sorted(set(environments))]

    def pool(self, environment: Environment = ()) -> Executor:
        """Return the executor whose provider sees these switches."""
        if environment not in self._pools:
            self._pools[environment] = ForkServerPool(
                self._jobs,
                load_provider,
                (self.pinned, self.toolchain.dsl_cuda),
                fork_server_environment(self.provider, self.target, environment),
                {compile_kernel: self._time_limit} if self._time_limit is not None else None,
            )
            self._pools[environment].start()
        return self._pools[environment]

    def warm_up(self, environments: Iterable[Environment]) -> None:
        """Start the fork servers for sets of switches that may be needed soon; returns before they are ready."""
        for environment in sorted(environments):
            self.pool(environment)

    def require_arch(self) -> None:
        """Compile an empty kernel and raise `MachineError` unless it comes out for the target's SM."""
        try:
            sm = self.pool().submit(compiled_sm, self.pinned).result()
        except TaskFailed as error:
            message = f"the installed DSL can't compile an empty kernel for {self.target.arch}: {error.reason}"
            raise MachineError(message, _arch_hint(self.toolchain.dsl)) from None
        if sm != self.target.sm:
            raise MachineError(
                f"the installed DSL (CUDA {self.toolchain.dsl_cuda} libraries) compiles {self.target.arch} for SM {sm};"
                f" such kernels would not load on {self.target.name}",
                _arch_hint(self.toolchain.dsl),
            )


def fork_server_environment(provider: Provider, target: Target, switches: Environment = ()) -> Mapping[str, str | None]:
    """Return the variables that pin a provider and the DSL to a target before they are imported.

    None unsets one, and `*` stands for any ending. The builder's own environment says nothing to them but what is in
    the toolchain's identity; nor to our own loader, which torch would start here, too.
    """
    return {
        "FA4_PRECOMPILE_*": None,
        **dsl_environment(target),
        **provider.pinned_environment(target),
        **dict(switches),
        **codegen_variables(),
    }


def _arch_hint(dsl: Mapping[str, str]) -> str:
    if any(name.endswith("cu13") for name in dsl):
        return "install a release of nvidia-cutlass-dsl that knows this arch"
    return "`pip install 'fa4-precompile[build,cu13]'` adds the DSL's CUDA 13 libraries"

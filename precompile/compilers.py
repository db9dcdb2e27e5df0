"""The pools of one build: a fork server for each environment that the spec's demands need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from types import TracebackType

from ..cache.target import Target
from ..cache.toolchain import FLASH_ATTN_4, ProviderSource, Toolchain, codegen_variables
from ..errors import MachineError
from .flash_attn_4 import fork_server_environment
from .pool import ForkServerPool, TaskFailed
from .provider import Pinned
from .worker import compile_kernel, compiled_sm, load_provider

Environment = tuple[tuple[str, str], ...]


class Compilers:
    """Starts fork servers when they are needed, and ends them all. Use it in a `with` statement.

    FA4 reads some of its switches when it is imported, so each set of switches has a process of its own.
    """

    def __init__(
        self,
        target: Target,
        toolchain: Toolchain,
        jobs: int,
        time_limit: float | None,
        provider: ProviderSource = FLASH_ATTN_4,
    ) -> None:
        self.target = target
        self.pinned = Pinned(target, provider.package)
        self.toolchain = toolchain
        self.jobs = jobs
        self._time_limit = time_limit
        self._pools: dict[Environment, Executor] = {}

    def __enter__(self) -> Compilers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pool in self._pools.values():
            pool.shutdown(wait=kind is None, cancel_futures=kind is not None)

    def pool(self, environment: Environment = ()) -> Executor:
        """Return the executor whose provider sees these switches."""
        if environment not in self._pools:
            self._pools[environment] = ForkServerPool(
                self.jobs,
                load_provider,
                (self.pinned, self.toolchain.dsl_cuda),
                {**fork_server_environment(self.target, dict(environment)), **codegen_variables()},
                {compile_kernel: self._time_limit} if self._time_limit is not None else None,
            )
        return self._pools[environment]

    def start(self, environments: Iterable[Environment]) -> None:
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


def _arch_hint(dsl: Mapping[str, str]) -> str:
    if any(name.endswith("cu13") for name in dsl):
        return "install a release of nvidia-cutlass-dsl that knows this arch"
    return "`pip install 'fa4-precompile[build,cu13]'` adds the DSL's CUDA 13 libraries"

"""From a product to a record in the cache, wherever it was compiled: by the build itself, or by a worker for it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cache import layout
from ..cache.key import symbol_of
from ..cache.origin import Origin
from ..cache.outcome import FAULTS
from ..cache.publish import Publisher
from ..cache.record import Record
from ..cache.store import Root
from ..cache.target import Target, host_machine
from ..cache.toolchain import Toolchain
from ..cache.trust import Trust
from ..errors import CacheError, MachineError, ProductError, UntrustedError
from ..products.cubin import read_cubin
from ..products.product import Product, require_sound
from ..providers.call import Call, Reached
from ..providers.dsl.installation import require_runtime_library
from .known_bad import UNGUARDED, Guard

RequireLoads = Callable[[bytes, str], None]
"""What raises `ProductError` unless a blob loads, with its symbol."""


@dataclass(frozen=True)
class Published:
    """A kernel that a worker has compiled, checked and published into a cache on storage that all share."""

    record: Record
    compile_seconds: float
    peak_bytes: int


def library_paths(toolchain: Toolchain) -> list[str]:
    """Return where a toolchain's run-time library is to be; nowhere if its hosts are of another kind."""
    return [layout.library_path(toolchain.id)] if toolchain.machine == host_machine() else []


def publish_library(publisher: Publisher, toolchain: Toolchain) -> None:
    """Publish the run-time library that is installed here, if a toolchain's kernels are for hosts as this one."""
    if library_paths(toolchain):
        publisher.publish_library(toolchain.id, require_runtime_library())


def record_of(product: Product, toolchain: str, target: Target, reached: Reached) -> Record:
    """Return the record of a product. Raises `ProductError` if it is of another kernel than was planned."""
    return product.record(
        toolchain=toolchain,
        arch=target.arch,
        slot=reached.slot,
        key=reached.key,
        key_fields=reached.key_fields,
        modifiers=reached.modifiers,
    )


def origin_of(
    product: Product, toolchain: str, target: Target, call: Call, spec: str, allowed: Mapping[str, str]
) -> Origin:
    """Return where a product comes from, and what is known to go wrong with it, which was allowed."""
    return Origin(
        toolchain=toolchain,
        kernel=product.kernel,
        target=target,
        spec=spec,
        variant=call.variant.render(),
        runtime_env=dict(call.environment),
        compile_seconds=product.compile_seconds,
        cpu_seconds=product.cpu_seconds,
        peak_bytes=product.peak_bytes,
        allowed=allowed,
    )


def check_product(product: Product, arguments: tuple[Any, ...]) -> None:
    """Look at what came from another machine as if it had just been compiled; `arguments` are `compile_kernel`'s.

    Raises `ProductError`. That it loads is for `Trial` to say.
    """
    pinned, toolchain, _, reached, *_ = arguments
    record_of(product, toolchain, pinned.target, reached)
    cubin = read_cubin(product.blob)
    require_sound(product.blob, symbol_of(product.kernel), cubin.sm, pinned.target)
    if hashlib.sha256(cubin.image).hexdigest() != product.cubin:
        raise ProductError("the cubin has other bytes than it had where it was compiled")


def _is_of(record: Record, reached: Reached) -> bool:
    return (record.slot, record.key, record.modifiers) == (reached.slot, reached.key, reached.modifiers)


@dataclass(frozen=True)
class PublishThere:
    """Has a worker publish what it compiles, into the same folder as it is called here. It is a `Then`."""

    root: Path
    trust: Trust
    spec: str
    guard: Guard = UNGUARDED

    def __call__(self, answer: Product, arguments: tuple[Any, ...], require_loads: RequireLoads) -> Published:
        """Check a product that was compiled for these arguments of `compile_kernel`, and publish it.

        Raises `ProductError`, or `MachineError` if the worker does not have the cache, or can't write it.
        """
        pinned, toolchain, call, reached, *_ = arguments
        publisher = Publisher(Root(self.root, self.trust))
        try:
            publisher.root.require_layout()
        except (CacheError, UntrustedError) as error:
            raise MachineError(str(error), "") from None
        record = record_of(answer, toolchain, pinned.target, reached)
        require_loads(answer.blob, record.symbol)
        known = self.guard.told_of(reached)
        publisher.publish(record, answer.blob, origin_of(answer, toolchain, pinned.target, call, self.spec, known))
        publisher.sync()
        return Published(record, answer.compile_seconds, answer.peak_bytes)

    def check(self, published: Published, arguments: tuple[Any, ...]) -> None:
        """Raise `ProductError` unless what a worker says that it has published can be read here, whole."""
        _, toolchain, _, reached, *_ = arguments
        try:
            record = Root(self.root, self.trust).read(toolchain, published.record.id).record
        except FAULTS as error:
            where = layout.record_path(toolchain, published.record.id)
            what = f"it says that it has published `{where}`, which can't be read here ({error}): is `{self.root}` the"
            raise ProductError(f"{what} same storage there?") from None
        is_what_it_says = record.render_file() == published.record.render_file()
        if not is_what_it_says or not _is_of(record, reached):
            raise ProductError("what it says that it has published is another kernel than it was asked for")

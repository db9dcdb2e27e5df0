"""Taking turns at the builds of a cache: who compiles one, and who publishes its manifest.

Best effort: it is never needed for a kernel to be right, and where locks don't work (some network filesystems) all go
on at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import MachineError
from .lock import Lock, NoLock
from .publish import Publisher
from .target import Target

# Another build of the same spec on this machine is waited for this long; then both work, which does no harm.
_BUILD_TIMEOUT_S = 3600.0

# To look whether each kernel of a spec is there reads all of them, from a slow disk perhaps.
_MANIFEST_TIMEOUT_S = 600.0


@contextmanager
def one_build_at_a_time(
    publisher: Publisher,
    spec_digest: str,
    target: Target,
    toolchain: str,
    say: Callable[[str], None],
    shard: str = "",
) -> Iterator[None]:
    """Hold a lock for this very build, so that eight ranks that start it don't compile everything eight times.

    The shards of a build have a lock each: they compile different kernels.
    """
    parts = (spec_digest, target.label, toolchain, *([shard] if shard else []))
    what = f"building shard {shard} of this spec into this cache" if shard else "building this spec into this cache"
    with _held(publisher, parts, what, _BUILD_TIMEOUT_S, say, "building"):
        yield


@contextmanager
def one_manifest_at_a_time(
    publisher: Publisher, spec_digest: str, target: Target, toolchain: str, say: Callable[[str], None]
) -> Iterator[None]:
    """Hold a lock while a build's manifest follows from what is in the cache.

    So the last of several that make a build in parts sees all of them, and publishes the manifest that says so.
    """
    parts = (spec_digest, target.label, toolchain, "manifest")
    with _held(publisher, parts, "publishing the manifest of this build", _MANIFEST_TIMEOUT_S, say, "going on"):
        yield


@contextmanager
def _held(
    publisher: Publisher, parts: tuple[str, ...], doing: str, limit: float, say: Callable[[str], None], otherwise: str
) -> Iterator[None]:
    lock = None
    try:
        try:
            lock = Lock(publisher.lock_path(*parts), doing)
            lock.acquire(say, limit)
        except (NoLock, MachineError) as error:
            say(f"{error}; {otherwise} without a lock")
        yield
    finally:
        if lock is not None:
            lock.release()

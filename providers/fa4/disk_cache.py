"""FlashAttention-4's own cache on disk: `flash_attn/cute/cache_utils.py`.

A slot that has it keeps each kernel in `FOLDER/<fingerprint>/<slot>/<SHA-256 of the pickled key>.o`. All of the name is
asked of FlashAttention's own objects, with the key that its own call has made; nothing of it is worked out here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..disk import DiskEntry, NoEntry

_ENABLED = "FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED"
_FOLDER = "FLASH_ATTENTION_CUTE_DSL_CACHE_DIR"
_NEEDED = ("cache_path", "_key_to_hash", "_lock_path", "EXPORT_FUNCTION_PREFIX")


@dataclass(frozen=True)
class FlashAttentionDiskCache:
    """FA4's cache, as a `DiskCache`."""

    conditions: ClassVar[Sequence[str]] = (
        "FlashAttention's Python source to the byte, with no `.py` file more in its folder",
        "Python's minor version, and the versions of nvidia-cutlass-dsl and apache-tvm-ffi",
        "the GPU's arch, torch's CUDA major, and the variables that FlashAttention reads (FA_LOG_LEVEL, too)",
        "the types of what calls are given: `deterministic=1` is not `True`, nor `softcap=15` the same as `15.0`",
    )

    def environment(self, folder: Path) -> Mapping[str, str]:
        """Return the two variables that FA4 reads when it is imported."""
        return {_ENABLED: "1", _FOLDER: str(folder)}

    def entry(self, cache: Any, key: object, folder: Path) -> DiskEntry | NoEntry:
        """Return what FA4's own cache object makes of a key."""
        if not all(hasattr(cache, name) for name in _NEEDED):
            return NoEntry("FlashAttention keeps the kernels of this slot in memory only, whatever is set")
        try:
            digest = cache._key_to_hash(key)
        except Exception as error:
            return NoEntry(f"FlashAttention can't pickle its key: {type(error).__name__}: {error}")
        return DiskEntry(
            file=str((cache.cache_path / f"{digest}.o").relative_to(folder)),
            lock=str(cache._lock_path(digest).relative_to(folder)),
            symbol=cache.EXPORT_FUNCTION_PREFIX,
        )

"""A provider as a job without us has it: it makes calls, and its own caches keep what its own compiler makes of them.

In a process in which nothing stands in for a cache, traces lean or exports otherwise. What such a process has of ours
is what it takes to have no GPU: tensors without memory, the target's variables, and answers about the device.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...cache.key import KeyText, encode_key
from ...providers.call import Call
from ...providers.loaded import loaded_slots
from ...providers.protocol import LiveProvider, Provider

_NAME = "stock"


@dataclass(frozen=True)
class Untouched:
    """What came of some calls.

    Attributes:
        kept: by slot and key, an object file of each kernel that is in memory only, of which a disk cache has no
            file.
        failed: why a call did not come to its end, by its place among the calls.
    """

    kept: Mapping[tuple[str, KeyText], bytes]
    failed: Mapping[int, str]


def make_calls(provider: Provider, live: LiveProvider, calls: Sequence[Call]) -> Untouched:
    """Make calls, one after another in one process, as a job does."""
    gc.enable()  # which a child that compiles one kernel does without
    failed = {}
    for place, call in enumerate(calls):
        try:
            live.call(call)
        except Exception as error:  # the others are none the worse for it
            failed[place] = f"{type(error).__name__}: {error}"
    return Untouched(dict(_kept(provider)), failed)


def _kept(provider: Provider) -> Iterator[tuple[tuple[str, KeyText], bytes]]:
    for slot in loaded_slots(provider):
        if isinstance(slot.cache, Mapping):  # a cache that writes files is a class of the provider's own
            for key, function in slot.cache.items():
                yield (slot.name, encode_key(key, passing=provider.passing)), _object(function)


def _object(function: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{_NAME}.o")
        function.export_to_c(object_file_path=str(path), function_name=_NAME)
        return path.read_bytes()

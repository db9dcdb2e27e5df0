"""FlashAttention-4 as published compiles a job's calls, without us, for its own disk cache: the reference.

As a script it makes the calls of its first argument (JSON, `fake_job.Call`) with FlashAttention's cache in the folder
of its second, and prints, as JSON, the slot, the key and the cubin's digest of all that it compiled.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fake_job
from fa4_precompile.cache.key import encode_key
from fa4_precompile.products.cubin import read_cubin
from fa4_precompile.providers.fa4.provider import FlashAttn4
from fa4_precompile.providers.loaded import loaded_slots
from jobs import B200, run_from_scratch

Compiled = tuple[str, str, str]


def compiled_by_stock(calls: Sequence[fake_job.Call], cache: Path) -> list[Compiled]:
    """Return what FlashAttention compiles for calls in a process of its own: slot, key and digest of the cubin."""
    arguments = json.dumps([vars(call) for call in calls])
    done = run_from_scratch(
        [sys.executable, __file__, arguments, str(cache)],
        FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED="1",
        FLASH_ATTENTION_CUTE_DSL_CACHE_DIR=str(cache),
    )
    assert done.code == 0, done.err
    return [(slot, key, cubin) for slot, key, cubin in json.loads(done.out.splitlines()[-1])]


def _answer_for_the_device() -> None:
    import cutlass.utils

    sms = int(B200["FLASH_ATTENTION_NUM_SMS"])
    cutlass.utils.HardwareInfo.__init__ = lambda *_: None
    cutlass.utils.HardwareInfo.get_device_multiprocessor_count = lambda *_: sms


def _listen(cache: Path) -> list[Compiled]:
    """Return the list that grows with each kernel that FlashAttention puts into one of its caches."""
    heard: list[Compiled] = []
    fake_job.load()
    for slot in loaded_slots(FlashAttn4()):
        kept = slot.cache

        class Listening(type(kept)):  # type: ignore[misc]
            name = slot.name

            def __setitem__(self, key: object, function: Any) -> None:
                before = set(cache.rglob("*.o"))
                super().__setitem__(key, function)
                (written,) = set(cache.rglob("*.o")) - before
                cubin = hashlib.sha256(read_cubin(written.read_bytes()).image).hexdigest()
                heard.append((self.name, encode_key(key), cubin))

        kept.__class__ = Listening
    return heard


def _main(calls: str, cache: Path) -> None:
    _answer_for_the_device()
    heard = _listen(cache)
    for call in json.loads(calls):
        fake_job.make(fake_job.Call(**call))
    sys.stdout.write("\n" + json.dumps(heard) + "\n")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]))

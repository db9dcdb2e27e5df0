"""What tests have a Python for another kind of host do. It has the loader, and no torch, so nothing here needs more.

As a script, `CACHE` looks every record of a cache up by its slot and key, as a job of the device that it was built for
does, calls what is found without arguments, and prints a list of `LookedUp` as JSON.
"""

from __future__ import annotations

import enum
import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fa4_precompile.cache.key import encode_key
from fa4_precompile.cache.outcome import Miss
from fa4_precompile.cache.record import Record
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.toolchain import Toolchain
from fa4_precompile.loader.resolve import Cache
from fa4_precompile.products.load import initialize
from fa4_precompile.providers.dsl.driver import Device

_TOKEN = re.compile(r"none|i(-?\d+)|f(-?0x[\d.a-fp+-]+)|f(-?inf)|(s|class|enum)(\d+):|([(),])")


@dataclass(frozen=True)
class LookedUp:
    """What came of the lookup of a record's key.

    Attributes:
        record: whose key it is.
        machine: the hosts that its toolchain builds for.
        kernel: the id of the kernel that was found; empty if none was.
        raised: what it raised when it was called without arguments.
        unready: why its initializer could not load its cubin, as where there is no driver.
        reason, detail: why none was found.
    """

    record: str
    machine: str
    kernel: str = ""
    raised: str = ""
    unready: str = ""
    reason: str = ""
    detail: str = ""


def look_up(path: Path) -> list[LookedUp]:
    """Look every record of a cache up; one that can't be read fails."""
    root, cache = Root(path), Cache([path])
    machines = {one.id: one.machine for one in root.toolchains() if isinstance(one, Toolchain)}
    found = []
    for record in root.records():
        assert isinstance(record, Record), record
        sms = record.facts.get("sms", 148)
        assert isinstance(sms, int)
        kernel = cache.resolve(record.slot, key_of(record.key), Device(0, "made up", record.arch, sms))
        known = record.id, machines[record.toolchain]
        if isinstance(kernel, Miss):
            found.append(LookedUp(*known, reason=kernel.reason.value, detail=kernel.detail))
        else:
            unready = _raised(partial(initialize, kernel.library, kernel.reference.symbol))
            found.append(LookedUp(*known, kernel.reference.id, _raised(kernel.function), unready))
    return found


def parse(text: str) -> list[LookedUp]:
    """Read what the script prints."""
    return [LookedUp(**one) for one in json.loads(text)]


def key_of(text: str) -> object:
    """Return a key that is written so: its classes are made here, of the same names."""
    value, end = _value(text, 0)
    assert end == len(text)
    assert encode_key(value) == text
    return value


def _value(text: str, start: int) -> tuple[object, int]:
    token = _TOKEN.match(text, start)
    assert token is not None, f"what is at {text[start : start + 30]!r} can't be read here"
    integer, float_, infinity, kind, length, bracket = token.groups()
    at = token.end()
    if integer:
        return int(integer), at
    if float_ or infinity:
        return float.fromhex(float_) if float_ else float(infinity), at
    if kind:
        end = at + int(length)
        return _named(kind, text[at:end]), end
    if bracket != "(":
        return None, at
    items = []
    while text[at] != ")":
        item, at = _value(text, at + (text[at] == ","))
        items.append(item)
    return tuple(items), at + 1


def _named(kind: str, name: str) -> object:
    parent, _, last = name.rpartition(".")
    if kind == "s":
        return name
    if kind == "class":
        return type(last, (), {"__module__": parent})
    module, _, enumeration = parent.rpartition(".")
    make: Any = enum.Enum
    return make(enumeration, [last], module=module)[last]


def _raised(function: Callable[[], object]) -> str:
    try:
        function()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


if __name__ == "__main__":
    print(json.dumps([asdict(one) for one in look_up(Path(sys.argv[1]))]))  # noqa: T201

"""What must hold of every reader, whatever it gets: an error of ours, or something that can be used and printed."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from faults.hostile import seal

from fa4_precompile.cache import layout
from fa4_precompile.cache.codec import DIGEST
from fa4_precompile.cache.compared import RunTime
from fa4_precompile.cache.fit import Fit
from fa4_precompile.cache.manifest import Manifest
from fa4_precompile.cache.record import Record, Reference
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.toolchain import Toolchain
from fa4_precompile.commands.lines import record_line, record_lines
from fa4_precompile.errors import RecordError, SpecError, UsageError
from fa4_precompile.precompile.spec.spec import parse_spec, target_book
from support import make_manifest, make_toolchain, numbered_record

_BOOK = target_book()
_ROOT = Root(Path("/a/cache"))


def _record(data: bytes) -> None:
    try:
        Reference.parse_file("a.json", data)
        record = Record.parse_file("a.json", data)
    except RecordError as error:
        _require_text(str(error))
        return
    assert Record.parse_file("a.json", record.render_file()) == record
    printed = [record_line(record, None, []), *record_lines(record, None, [], _ROOT), json.dumps(record.render())]
    assert "\n".join(printed).encode()
    _require_path(layout.record_path(record.toolchain, record.id))
    _require_path(layout.blob_path(record.blob))


def _manifest(data: bytes) -> None:
    try:
        manifest = Manifest.parse_file("a.json", data)
    except RecordError as error:
        _require_text(str(error))
        return
    assert Manifest.parse_file("a.json", manifest.render_file()).render_file() == manifest.render_file()
    _require_path(layout.manifest_path(manifest.toolchain, manifest.spec_digest, manifest.target))
    for kernel in manifest.kernels:
        _require_path(layout.record_path(manifest.toolchain, kernel))


def _toolchain(data: bytes) -> None:
    try:
        toolchain = Toolchain.parse_file("a.json", data)
    except RecordError as error:
        _require_text(str(error))
        return
    assert Toolchain.parse_file("a.json", toolchain.render_file()) == toolchain
    assert isinstance(toolchain.differences(make_toolchain()), list)
    here = RunTime("flash-attn-4", "0" * 64, "0.1.15", "x86_64", {}, {}, {}, 13, 13)
    assert "".join(here.differences(toolchain, Fit.EXACT)).encode()
    _require_path(layout.toolchain_path(toolchain.id))


def _spec(data: bytes) -> None:
    try:
        spec = parse_spec("a.yaml", data.decode(errors="replace"), _BOOK)
        assert len(spec.digest) == 64
        assert json.dumps([variant.render() for variant in spec.variants])
    except (SpecError, UsageError) as error:
        _require_text(str(error))


def _require_text(text: str) -> None:
    assert text.encode()


def _require_path(relative: str) -> None:
    parts = Path(relative).parts
    assert ".." not in parts
    assert "\0" not in relative
    assert all(len(part.encode()) <= 255 for part in parts)


def mutated(base: Mapping[str, object], data: bytes) -> bytes:
    """Return a file whose own digest is right, with parts of a JSON object replaced as some bytes say.

    Bytes alone hardly ever get past the digest and the syntax.
    """
    content = json.loads(json.dumps(base))
    for at in range(0, min(len(data) - 2, _MOST_MUTATIONS * 3), 3):
        places = list(_places(content))
        if not places:
            break
        holder, key = places[data[at] % len(places)]
        choice = data[at + 1] % (len(_VALUES) + 3)
        if choice < len(_VALUES):
            holder[key] = copy.deepcopy(_VALUES[choice])
        elif choice == len(_VALUES) and isinstance(holder, dict):
            holder[f"{key}\ud800"] = holder.pop(key)
        elif choice == len(_VALUES) + 1:
            del holder[key]
        else:
            holder[key] = data[at + 2 :].decode("latin-1")
    return seal(json.dumps(content, indent=1).removesuffix("\n}").encode())


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from _places(value[key])


def _sealed_too(check: Callable[[bytes], None], base: bytes) -> Callable[[bytes], None]:
    content = json.loads(base)
    del content[DIGEST]

    def all_ways(data: bytes) -> None:
        check(data)
        check(seal(data))
        check(mutated(content, data))

    return all_ways


_DEEP = json.loads("[" * 60 + "1" + "]" * 60)

_MOST_MUTATIONS = 6

_NUMBERS = (0, -1, 1 << 62, 1 << 63, 10**99, 10**101, 0.5, -0.5, 1e308)
_TEXTS = ("", ".", "..", "../x", "a/b", "\0", "\ud800", "x" * 300, "0" * 32, "0" * 64, "f" * 65, "sm_100a", "sm_99999")
_NESTS: tuple[Any, ...] = ([], {}, [[]], [{}], {"": ""}, {"a": {"b": []}}, _DEEP)
_VALUES = (None, True, *_NUMBERS, *_TEXTS, *_NESTS)

PROPERTIES: Mapping[str, Callable[[bytes], None]] = MappingProxyType(
    {
        "record": _sealed_too(_record, numbered_record(0).render_file()),
        "manifest": _sealed_too(_manifest, make_manifest(numbered_record(0), failed={"one": "why"}).render_file()),
        "toolchain": _sealed_too(_toolchain, make_toolchain(environment={"CUTE_DSL_LINEINFO": "1"}).render_file()),
        "spec": _spec,
    }
)

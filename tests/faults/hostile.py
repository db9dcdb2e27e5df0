"""Files that are whole by their own word, and that no builder writes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fa4_precompile.cache import layout
from fa4_precompile.cache.codec import DIGEST, render_file
from support import blob_file, make_manifest, make_target, make_toolchain, numbered_record, record_file

RECORD = numbered_record(0)

Harm = Callable[[Path], object]

# More than any machine of ours has, and what a disk gives for nothing.
_TERABYTE = 1 << 40


def seal(body: bytes) -> bytes:
    """Return the bytes of a file whose own digest is right, from JSON without its last brace."""
    return body + b',\n "%s": "%s"\n}\n' % (DIGEST.encode(), hashlib.sha256(body).hexdigest().encode())


def sealed(content: Mapping[str, object]) -> bytes:
    """Return the bytes of a file of any content, whose own digest is right."""
    return seal(json.dumps(content, indent=1).removesuffix("\n}").encode())


def put(path: Path, data: bytes) -> None:
    """Put a file in another's place."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    path.chmod(0o444)


def _record(cache: Path, changes: Mapping[str, object]) -> None:
    put(record_file(cache, RECORD), sealed({**RECORD.render(), **changes}))


def _spelled(cache: Path, field: str, text: str) -> None:
    """Write a record in which a field is spelled so: what `json.dumps` would not write."""
    body = json.dumps({**RECORD.render(), field: "@"}, indent=1).removesuffix("\n}").replace('"@"', text)
    put(record_file(cache, RECORD), seal(body.encode("ascii", "backslashreplace")))


def _manifest_file(cache: Path) -> Path:
    (path,) = cache.glob("manifests/*/*.json")
    return path


def _manifest(cache: Path, changes: Mapping[str, object]) -> None:
    content = json.loads(make_manifest(RECORD).render_file())
    put(_manifest_file(cache), sealed({**{k: v for k, v in content.items() if k != DIGEST}, **changes}))


def _toolchain(cache: Path, changes: Mapping[str, object]) -> None:
    made = make_toolchain()
    put(cache / layout.toolchain_path(made.id), sealed({**made.render(), **changes}))


def _sparse(path: Path, size: int) -> None:
    path.unlink(missing_ok=True)
    with open(path, "wb") as file:
        os.truncate(file.fileno(), size)
    path.chmod(0o444)


def _sparse_blob(cache: Path, size: int, stated: int) -> None:
    _sparse(blob_file(cache, RECORD), size)
    put(record_file(cache, RECORD), render_file({**RECORD.render(), "blob_bytes": stated}))


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def _bare_nested(cache: Path) -> None:
    put(record_file(cache, RECORD), b"[" * 100_000)


RECORDS: dict[str, Harm] = {
    "cubin_bytes of 401 digits": lambda cache: _spelled(cache, "cubin_bytes", "1" * 401),
    "blob_bytes of 4001 digits": lambda cache: _spelled(cache, "blob_bytes", "1" + "0" * 4000),
    "blob_bytes of a terabyte": lambda cache: _sparse_blob(cache, _TERABYTE, _TERABYTE),
    "blob_bytes below zero": lambda cache: _record(cache, {"blob_bytes": -1}),
    "blob of a terabyte": lambda cache: _sparse_blob(cache, _TERABYTE, RECORD.blob_bytes),
    "blob of 200 MB of nothing": lambda cache: _sparse_blob(cache, 200 << 20, 200 << 20),
    "record of a terabyte": lambda cache: _sparse(record_file(cache, RECORD), _TERABYTE),
    "nesting of 900": lambda cache: _record(cache, {"key_fields": {"deep": _nested(900)}}),
    "nesting of 60": lambda cache: _record(cache, {"key_fields": {"deep": _nested(60)}}),
    "nesting without end": _bare_nested,
    "half a character in the key": lambda cache: _record(cache, {"key_fields": {"name": "\ud800"}}),
    "half a character in a name": lambda cache: _record(cache, {"key_fields": {"\udfff": 1}}),
    "half a character in the slot": lambda cache: _record(cache, {"slot": "\ud800"}),
    "arch that is none": lambda cache: _record(cache, {"arch": "sm_" + "9" * 99}),
    "arch with a path": lambda cache: _record(cache, {"arch": "../../etc"}),
    "another kernel's symbol": lambda cache: _record(cache, {"symbol": numbered_record(1).symbol}),
    "symbol with a NUL": lambda cache: _record(cache, {"symbol": "fa4\0"}),
    "facts of any size": lambda cache: _record(cache, {"facts": {"sms": 1 << 70}}),
    "schema of any depth": lambda cache: _record(cache, {"schema": _nested(900)}),
    "digest with a path": lambda cache: _record(cache, {"blob": "../" * 21 + "x"}),
}

_CALL: Mapping[str, object] = {"variant": {}, "runtime_env": {}, "kernels": [0]}

MANIFESTS: dict[str, Harm] = {
    "kernels with a path": lambda cache: _manifest(cache, {"kernels": ["../../../../etc/passwd"]}),
    "kernels with a NUL": lambda cache: _manifest(cache, {"kernels": ["\0" * 64]}),
    "kernels with half a character": lambda cache: _manifest(cache, {"kernels": ["\ud800" * 64]}),
    "target with a path": lambda cache: _manifest(cache, {"target": {**make_target().render(), "name": "../x"}}),
    "target with half a character": lambda cache: _manifest(
        cache, {"target": {**make_target().render(), "name": "\ud800"}}
    ),
    "excluded of any depth": lambda cache: _manifest(
        cache, {"excluded": [{"variant": {"deep": _nested(900)}, "reason": ""}]}
    ),
    "calls that reach what is not there": lambda cache: _manifest(cache, {"calls": [{**_CALL, "kernels": [1]}]}),
    "calls that reach something below": lambda cache: _manifest(cache, {"calls": [{**_CALL, "kernels": [-1]}]}),
    "calls of any depth": lambda cache: _manifest(cache, {"calls": [{**_CALL, "variant": {"deep": _nested(900)}}]}),
    "failed with half a character": lambda cache: _manifest(cache, {"failed": {"\ud800": "why"}}),
    "manifest of a terabyte": lambda cache: _sparse(_manifest_file(cache), _TERABYTE),
}

TOOLCHAINS: dict[str, Harm] = {
    "version of half a character": lambda cache: _toolchain(cache, {"provider_version": "\ud800"}),
    "libraries of any depth": lambda cache: _toolchain(cache, {"traced_libraries": {"quack": _nested(900)}}),
    "toolchain of a terabyte": lambda cache: _sparse(cache / layout.toolchain_path(make_toolchain().id), _TERABYTE),
    "dsl_cuda of any size": lambda cache: _toolchain(cache, {"dsl_cuda": 1 << 64}),
}

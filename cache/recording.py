"""What a job writes down of its lookups, and who reads it: one file a process, a JSON object a line.

A file has a line of each `kind`: `process` who wrote it, `provider` what it served, `lookup` a kernel and the call that
asked for it, `end` when the process ended by itself. Each line has the digest of the rest of it, so that a damaged one
shows. Nothing depends on their order: two threads of a process may write at once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import RecordError
from .codec import Fields, is_digest
from .key import Facts, KeyText, canonical_json
from .target import Target

SCHEMA = "fa4-precompile/recording/1"
ENDING = ".jsonl"

_DIGEST = "sha256"


@dataclass(frozen=True)
class Process:
    """Who wrote a file.

    Attributes:
        host: the machine's name.
        process: its process id there.
        rank: in its job, as the launcher's variables say; empty if they don't.
        started: when its first kernel was looked up, as `2026-11-29T12:00:00Z`.
    """

    host: str
    process: int
    rank: str
    started: str

    def __str__(self) -> str:
        """Return who it is in words."""
        return f"{f'rank {self.rank}, ' if self.rank else ''}process {self.process} on {self.host}"


@dataclass(frozen=True)
class Served:
    """What kernels are looked up of.

    Attributes:
        package: the provider's package in that process, by which lookups name it.
        provider: the provider's name.
        version: of what is installed.
        source: the digest of its source; empty if it could not be read.
        target: the device.
    """

    package: str
    provider: str
    version: str
    source: str
    target: Target


@dataclass(frozen=True)
class Lookup:
    """A kernel that was looked up, and the call that asked for it first.

    Attributes:
        package: whose kernel.
        slot: the compile cache.
        key: what was looked up there; empty if it can't be written down.
        facts: digests of the functions in the key.
        axes: the call, by the axes of a spec that are not at their default; None if it is not known.
        unsaid: what the call has that no axis says.
        answer: `hit`, or why the cache did not have it; `fake` where nobody asked it.
    """

    package: str
    slot: str
    key: KeyText
    facts: Facts
    axes: Mapping[str, object] | None
    unsaid: Sequence[str]
    answer: str


@dataclass(frozen=True)
class End:
    """The process ended by itself, having written so many lookups."""

    lookups: int


Line = Process | Served | Lookup | End


def render_line(line: Line) -> bytes:
    """Return what is written of a line, with its end."""
    content = _content(line)
    digest = hashlib.sha256(canonical_json(content)).hexdigest()
    return json.dumps({**content, _DIGEST: digest}, allow_nan=False).encode("ascii") + b"\n"


def _content(line: Line) -> dict[str, object]:
    match line:
        case Process():
            return {"kind": "process", "schema": SCHEMA, **vars(line)}
        case Served():
            return {"kind": "provider", **vars(line), "target": line.target.render()}
        case Lookup():
            axes = None if line.axes is None else dict(line.axes)
            return {"kind": "lookup", **vars(line), "facts": dict(line.facts), "axes": axes, "unsaid": [*line.unsaid]}
    return {"kind": "end", "lookups": line.lookups}


def parse_line(source: str, data: bytes) -> Line:
    """Read what `render_line` wrote, without its end. `source` names the place. Raises `RecordError`."""
    try:
        content = json.loads(data.decode("ascii"))
    except (ValueError, RecursionError):
        raise RecordError(source, "is damaged: no JSON") from None
    if not isinstance(content, dict):
        raise RecordError(source, "is damaged: no JSON object")
    fields = Fields(source, content)
    stated = content.pop(_DIGEST, None)
    if not isinstance(stated, str) or stated != hashlib.sha256(canonical_json(content)).hexdigest():
        raise RecordError(source, "is damaged: its content does not have the digest that it states")
    kind = fields.string("kind")
    if kind == "process":
        if (schema := fields.string("schema")) != SCHEMA:
            raise RecordError(source, f"has schema {schema[:80]!r}; this version reads {SCHEMA!r}")
        return Process(
            fields.string("host"), fields.integer("process"), fields.string("rank"), fields.string("started")
        )
    if kind == "provider":
        return _served(fields)
    if kind == "lookup":
        return _lookup(fields)
    if kind == "end":
        return End(fields.integer("lookups"))
    raise fields.wrong(f"is of a kind that this version does not know: {kind[:80]!r}")


def _served(fields: Fields) -> Served:
    source = fields.string("source")
    if source and not is_digest(source):
        raise fields.wrong("field `source` is no digest")
    package, provider, version = (fields.string(name) for name in ("package", "provider", "version"))
    return Served(package, provider, version, source, Target.parse(fields.object("target")))


def _lookup(fields: Fields) -> Lookup:
    return Lookup(
        package=fields.string("package"),
        slot=fields.string("slot"),
        key=KeyText(fields.string("key")),
        facts=fields.facts("facts"),
        axes=None if fields.content.get("axes") is None else fields.free("axes"),
        unsaid=fields.words("unsaid"),
        answer=fields.string("answer"),
    )

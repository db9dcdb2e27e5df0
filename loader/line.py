"""A line of a report: what a process tells of itself, as it writes it and as it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from ..cache.codec import Fields, parse_object
from ..cache.key import KernelId
from .ranks import Placement
from .stats import Missed, Slow, Stats
from .wanted import KERNELS

_WHOLE = ("resolved", "preloaded", "compiled", "stored", "refused")
_SECONDS = ("load_seconds", "compile_seconds", "saved_seconds")


@dataclass(frozen=True)
class ServedRoot:
    """A root that a process was served from.

    Attributes:
        path: where it is in that process.
        fingerprint: the name of all that was in it; empty if that was not looked at.
    """

    path: str
    fingerprint: str = ""


@dataclass(frozen=True)
class Line:
    """What a process did, up to a time.

    Attributes:
        process: its number on its host.
        placement: host, rank, local rank, number of ranks, job.
        started, time: when its loader was made, and when the line was written; UTC, ISO 8601 with microseconds, so
            that they compare as text.
        ended: whether the process has come to its end as Python processes do, and the line is its last.
        on_miss: what it does where there is no kernel.
        roots: where its kernels are looked for.
        toolchains: ids of the toolchains that built the kernels that it resolved.
        stats: the counts.
        first_lookup_seconds: from `started` to the first key that its loader was asked for; None if none was.
        misses: the calls that the cache had no kernel for.
        slowest: the kernels that took longest to load.
        kernels: ids of those that it resolved.
    """

    process: int
    placement: Placement
    started: str
    time: str
    ended: bool
    on_miss: str
    stats: Stats
    roots: Sequence[ServedRoot] = ()
    toolchains: Sequence[str] = ()
    first_lookup_seconds: float | None = None
    misses: Sequence[Missed] = ()
    slowest: Sequence[Slow] = ()
    kernels: Sequence[KernelId] = field(default_factory=list)

    @property
    def strict(self) -> bool:
        """Whether nothing could be compiled in the process."""
        return self.on_miss == "error"

    def render(self) -> dict[str, object]:
        """Return the line as JSON; the fields of the placement and of the counts stand beside the others."""
        return {
            "process": self.process,
            **asdict(self.placement),
            "started": self.started,
            "time": self.time,
            "ended": self.ended,
            "on_miss": self.on_miss,
            "strict": self.strict,
            "roots": [{"path": root.path, "fingerprint": root.fingerprint or None} for root in self.roots],
            "toolchains": list(self.toolchains),
            **asdict(self.stats),
            "first_lookup_seconds": self.first_lookup_seconds,
            "misses": [asdict(missed) for missed in self.misses],
            "slowest": [asdict(slow) for slow in self.slowest],
            KERNELS: list(self.kernels),
        }

    @classmethod
    def parse(cls, source: str, data: bytes) -> Line:
        """Read what `render` gave, as one line of JSON. Raises `RecordError`, which names `source`."""
        found = parse_object(source, data)
        whole = {name: _count(found, name) for name in _WHOLE}
        seconds = {name: found.number(name) for name in _SECONDS}
        missed, inexact = _counts(found, "missed"), _counts(found, "inexact")
        return cls(
            process=_count(found, "process"),
            placement=Placement(
                host=found.string("host"),
                rank=_optional(found, "rank"),
                local_rank=_optional(found, "local_rank"),
                world_size=_optional(found, "world_size"),
                job=found.string("job"),
            ),
            started=found.string("started"),
            time=found.string("time"),
            ended=found.boolean("ended"),
            on_miss=found.string("on_miss"),
            stats=Stats(missed=missed, inexact=inexact, **whole, **seconds),  # type: ignore[arg-type]
            roots=[ServedRoot(root.string("path"), _text(root, "fingerprint")) for root in found.objects("roots")],
            toolchains=found.words("toolchains"),
            first_lookup_seconds=_none_or_number(found, "first_lookup_seconds"),
            misses=[_missed(one) for one in found.objects("misses")],
            slowest=[
                Slow(one.string("kernel"), one.string("slot"), one.number("seconds"))
                for one in found.objects("slowest")
            ],
            kernels=[KernelId(kernel) for kernel in found.digests(KERNELS)],
        )


def _missed(found: Fields) -> Missed:
    call: Mapping[str, object] | None = None if found.content.get("call") is None else found.free("call")
    return Missed(
        slot=found.string("slot"),
        reason=found.string("reason"),
        arch=found.string("arch"),
        call=call,
        detail=found.string("detail"),
        count=_count(found, "count"),
    )


def _counts(found: Fields, name: str) -> dict[str, int]:
    inner = found.object(name)
    found.free(name)  # the names can be printed
    return {key: _count(inner, key) for key in inner.content}


def _count(found: Fields, name: str) -> int:
    number = found.integer(name)
    if number < 0:
        raise found.wrong(f"field `{name}` is negative")
    return number


def _optional(found: Fields, name: str) -> int | None:
    return None if found.content.get(name) is None else _count(found, name)


def _none_or_number(found: Fields, name: str) -> float | None:
    return None if found.content.get(name) is None else found.number(name)


def _text(found: Fields, name: str) -> str:
    return "" if found.content.get(name) is None else found.string(name)

"""A certificate: how a kernel ran on a GPU, as `canary` has seen it.

It says nothing of a kernel's bytes, so it is beside the record and in no list of contents. Who can write the cache can
write one: it is believed as far as the folder's owner is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime

from .codec import Fields, parse_file, render_file
from .key import BlobDigest, KernelId, digest_json
from .target import parse_arch

SCHEMA = "fa4-precompile/certificate/1"
TIME = "%Y-%m-%dT%H:%M:%S.%fZ"

COMPARED = "compared"
RAN = "ran"
FAILED = "failed"
VERDICTS = (COMPARED, RAN, FAILED)
"""Within the tolerance of a reference; ran with nothing to compare it with; raised, hung or differed."""


@dataclass(frozen=True)
class Where:
    """Where a kernel ran.

    Attributes:
        device, arch, sms: the GPU as a CUDA program sees it.
        driver: release of the driver, and the CUDA version that it speaks.
        cuda, torch: torch's CUDA version, and its own.
        provider, provider_version: whose calls they were.
        version: this package's.
    """

    device: str
    arch: str
    sms: int
    driver: str
    cuda: str
    torch: str
    provider: str
    provider_version: str
    version: str

    @property
    def digest(self) -> str:
        """SHA-256 of the fields: a kernel has one certificate from there, the last."""
        return digest_json(self.render())

    def render(self) -> dict[str, object]:
        """Return the fields as JSON."""
        return asdict(self)

    @classmethod
    def parse(cls, fields: Fields) -> Where:
        """Read what `render` wrote. Raises `RecordError`."""
        names = ("device", "driver", "cuda", "torch", "provider", "provider_version", "version")
        values = {name: fields.string(name) for name in names}
        for name, value in values.items():
            if not value.isprintable():
                raise fields.wrong(f"field `{name}` has a character that can't be printed")
        return cls(arch=parse_arch(fields), sms=fields.integer("sms"), **values)


@dataclass(frozen=True)
class Certificate:
    """How a kernel ran.

    Attributes:
        toolchain, kernel, blob: which kernel, and which bytes of it.
        variant, runtime_env: the call, and the variables that were set for it.
        verdict: one of `VERDICTS`.
        error, tolerance: the largest relative error of the call's results, and what was allowed; None if nothing was
            compared.
        words: why nothing was compared, or what went wrong; else empty.
        seconds: what the whole call took with its kernels loaded; None if it did not end well.
        when: the time in UTC, as `2026-11-29T12:00:00.000000Z`: the later is the greater text.
        where: where it ran.
    """

    toolchain: str
    kernel: KernelId
    blob: BlobDigest
    variant: Mapping[str, object]
    runtime_env: Mapping[str, str]
    verdict: str
    error: float | None
    tolerance: float | None
    words: str
    seconds: float | None
    when: str
    where: Where

    @property
    def is_good(self) -> bool:
        """Whether nothing went wrong."""
        return self.verdict != FAILED

    def __str__(self) -> str:
        """Return it as a phrase for people, `ran on NVIDIA H100, error 1.2e-03`."""
        if self.verdict == FAILED:
            words = "".join(one if one.isprintable() else " " for one in self.words)
            return f"FAILED on {self.where.device}: {words}"
        error = "not compared" if self.error is None else f"error {self.error:.1e}"
        return f"ran on {self.where.device}, {error}"

    def render(self) -> dict[str, object]:
        """Return the fields as JSON."""
        return {**asdict(self), "variant": dict(self.variant), "runtime_env": dict(self.runtime_env)}

    def render_file(self) -> bytes:
        """Return the bytes of `certificates/<toolchain>/<aa>/<kernel id>-<where>.json`."""
        return render_file({"schema": SCHEMA, **self.render()})

    @classmethod
    def parse_file(cls, source: str, data: bytes) -> Certificate:
        """Read what `render_file` wrote. Raises `RecordError`."""
        return cls.parse(parse_file(source, data, SCHEMA))

    @classmethod
    def parse(cls, fields: Fields) -> Certificate:
        """Read what `render` wrote. Raises `RecordError`."""
        verdict = fields.string("verdict")
        if verdict not in VERDICTS:
            raise fields.wrong(f"field `verdict` is none of {', '.join(VERDICTS)}")
        when = fields.string("when")
        if not _is_time(when):
            raise fields.wrong("field `when` is no time in UTC such as 2026-11-29T12:00:00.000000Z")
        return cls(
            toolchain=fields.digest("toolchain", 32),
            kernel=KernelId(fields.digest("kernel")),
            blob=BlobDigest(fields.digest("blob")),
            variant=fields.free("variant"),
            runtime_env=fields.strings("runtime_env"),
            verdict=verdict,
            error=_number(fields, "error"),
            tolerance=_number(fields, "tolerance"),
            words=fields.string("words"),
            seconds=_number(fields, "seconds"),
            when=when,
            where=Where.parse(fields.object("where")),
        )


def _is_time(text: str) -> bool:
    try:
        return datetime.strptime(text, TIME).strftime(TIME) == text
    except ValueError:
        return False


def _number(fields: Fields, name: str) -> float | None:
    return None if fields.content.get(name, ...) is None else fields.number(name)

"""What a canary has done, as a document and in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..cache.certificate import COMPARED, FAILED, RAN, Certificate, Where
from ..cache.codec import Fields, parse_object
from ..cache.key import KernelId
from ..cache.layout import MOST_BYTES
from ..text.words import count, one_line
from .tried import Tried

SCHEMA = "fa4-precompile/canary/1"


@dataclass(frozen=True)
class Report:
    """What a canary has done so far.

    Attributes:
        where: the device and what is installed.
        fingerprint: that of the cache; empty if it has none.
        seed: of the values, and of the sample.
        tried: the calls that were made.
        left: calls that were not, by `--sample`, or as it was interrupted.
        elsewhere, loose: kernels for other devices, and those that no build names.
        seconds: how long all took.
    """

    where: Where
    fingerprint: str
    seed: int
    tried: Sequence[Tried]
    left: int
    elsewhere: int
    loose: int
    seconds: float

    @property
    def is_good(self) -> bool:
        """Whether no call went wrong."""
        return all(one.verdict != FAILED for one in self.tried)

    @property
    def certificates(self) -> list[Certificate]:
        """The last certificate of each kernel."""
        last: dict[tuple[str, KernelId], Certificate] = {}
        for one in self.tried:
            last.update({(it.toolchain, it.kernel): it for it in one.certificates})
        return list(last.values())

    def render(self) -> dict[str, object]:
        """Return all of it as JSON."""
        return {
            "schema": SCHEMA,
            "where": self.where.render(),
            "fingerprint": self.fingerprint or None,
            "seed": self.seed,
            "seconds": self.seconds,
            "calls": [one.render() for one in self.tried],
            "certificates": [one.render() for one in self.certificates],
            "left": self.left,
            "elsewhere": self.elsewhere,
            "loose": self.loose,
        }

    def summary(self) -> Iterator[str]:
        """Yield what came of it, in sentences."""
        where, verdicts = self.where, [one.verdict for one in self.certificates]
        yield (
            f"{where.device} ({where.arch}, {where.sms} SMs, driver {where.driver}), torch {where.torch} for CUDA "
            f"{where.cuda}, {where.provider} {where.provider_version}"
        )
        errors = [one.error for one in self.certificates if one.error is not None and one.is_good]
        parts = [
            count(len(self.tried), "call"),
            count(len(verdicts), "kernel"),
            f"{verdicts.count(COMPARED)} compared" + (f" (largest error {max(errors):.1e})" if errors else ""),
            f"{verdicts.count(RAN)} ran, not compared",
            f"{verdicts.count(FAILED)} failed",
        ]
        yield f"{', '.join(parts)}; {self.seconds:.1f} s"
        if self.left:
            yield f"{count(self.left, 'call')} not made"
        if self.elsewhere:
            yield f"{count(self.elsewhere, 'kernel')} for other devices"
        if self.loose:
            yield f"{count(self.loose, 'kernel')} of no build, so that no call is known that reaches them"


def read_certificates(source: str, data: bytes) -> list[Certificate]:
    """Return the certificates in a report that `render` made, as a cache can keep them.

    Raises `RecordError`, which names `source`, if it is none.
    """
    fields = parse_object(source, data)
    if fields.content.get("schema") != SCHEMA:
        raise fields.wrong(f"is no report of schema {SCHEMA}")
    found = fields.content.get("certificates")
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise fields.wrong("field `certificates` is no list of objects")
    certificates = [Certificate.parse(Fields(source, one, fields.plain)) for one in found]
    if any(len(one.render_file()) > MOST_BYTES for one in certificates):
        raise fields.wrong(f"has a certificate of more than {MOST_BYTES:,} bytes")
    return certificates


def call_lines(tried: Tried) -> Iterator[str]:
    """Yield a call as a line, and what went wrong with it in more."""
    outcome, call = tried.answer.outcome, one_line(tried.due.variant)
    settings = "".join(f" [{name}={value}]" for name, value in sorted(tried.due.runtime_env.items()))
    seconds = f"{outcome.seconds * 1e3:.2f} ms" if outcome else ""
    error = "" if tried.verdict == FAILED else "not compared"
    if outcome and outcome.errors and outcome.tolerance:
        name, largest = max(outcome.errors.items(), key=lambda item: item[1])
        error = f"{name} {largest:.1e} of {outcome.tolerance:.0e}"
    shown = "FAILED" if tried.verdict == FAILED else tried.verdict
    yield f"{shown:9} {error:22} {seconds:>10}  {count(len(tried.due.kernels), 'kernel'):>10}  {call}{settings}"
    if tried.words:
        yield f"          {tried.words}"
    if tried.verdict == FAILED:
        if outcome and outcome.errors:
            yield "          " + ", ".join(f"{name} {error:.1e}" for name, error in outcome.errors.items())
        kernels = " ".join(dict.fromkeys(kernel[:12] for _, kernel in tried.due.kernels))
        yield f"          kernels of this call: {kernels}; taken: {' '.join(_taken(tried)) or 'not known'}"
        yield from (f"          | {line}" for line in tried.answer.report.splitlines())


def _taken(tried: Tried) -> list[str]:
    return [one.kernel[:12] for one in tried.answer.taken]

"""From what became of a call to what is said of its kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from ..cache.certificate import COMPARED, FAILED, RAN, TIME, Certificate, Where
from ..cache.key import BlobDigest
from ..cache.record import Record
from .answer import Answer
from .due import Due, Identity


@dataclass(frozen=True)
class Tried:
    """A call that was made, what became of it, and what that says of kernels."""

    due: Due
    answer: Answer
    certificates: Sequence[Certificate]

    @property
    def verdict(self) -> str:
        """`compared`, `ran` or `failed`."""
        return verdict_of(self.answer)

    @property
    def words(self) -> str:
        """Why nothing was compared, or what went wrong."""
        return words_of(self.answer)

    def render(self) -> dict[str, object]:
        """Return the fields as JSON."""
        outcome = self.answer.outcome
        return {
            "spec": self.due.spec,
            "variant": dict(self.due.variant),
            "runtime_env": dict(self.due.runtime_env),
            "kernels": [kernel for _, kernel in self.due.kernels],
            "taken": [one.kernel for one in self.answer.taken],
            "verdict": self.verdict,
            "errors": {name: _finite(error) for name, error in outcome.errors.items()} if outcome else {},
            "tolerance": outcome.tolerance if outcome else None,
            "words": self.words,
            "seconds": outcome.seconds if outcome else None,
            "report": self.answer.report,
        }


def verdict_of(answer: Answer) -> str:
    """Return one of `certificate.VERDICTS`."""
    if answer.outcome is None or answer.outcome.fault:
        return FAILED
    return COMPARED if answer.outcome.errors else RAN


def words_of(answer: Answer) -> str:
    """Return why nothing was compared, or what went wrong; nothing for a call that was as it should be."""
    return answer.failure if answer.outcome is None else answer.outcome.fault or answer.outcome.not_compared


_OTHERS = "the call takes other kernels than those that were built for it"


class Clerk:
    """Writes certificates. In one run the first good word on a kernel stands: a later call is due to others.

    A call that went wrong speaks against the kernels of it on which there is no good word yet; if there is on all,
    against all.
    """

    def __init__(self, where: Where, records: Mapping[Identity, Record]) -> None:
        self._where = where
        self._records = records
        self._good: set[Identity] = set()

    def tried(self, due: Due, answer: Answer) -> Tried:
        """Return what became of a call, with the certificates that follow."""
        if answer.outcome is not None and self._lacks(due, answer):
            answer = replace(answer, outcome=None, failure=_OTHERS, is_made=False)
        if not answer.is_made:
            return Tried(due, answer, [])
        blobs = {(one.toolchain, one.kernel): one.blob for one in answer.taken}
        if verdict_of(answer) == FAILED:
            blobs |= {one: self._records[one].blob for one in due.kernels if one in self._records}
        meant = [one for one in blobs if one not in self._good]
        if verdict_of(answer) == FAILED:
            meant = meant or list(blobs)
        else:
            self._good.update(meant)
        return Tried(due, answer, [self._certificate(due, answer, one, blobs[one]) for one in meant])

    def _lacks(self, due: Due, answer: Answer) -> bool:
        """Return whether a call did not take a kernel that it is due for, nor the one that is served in its place.

        There is one of two toolchains that both fit: then no job here gets the other.
        """
        taken = {(one.toolchain, one.kernel) for one in answer.taken}
        served = {self._key(one) for one in taken}
        return any(one not in taken and self._key(one) not in served for one in due.kernels)

    def _key(self, of: Identity) -> object:
        record = self._records.get(of)
        return of if record is None else (record.slot, record.key)

    def _certificate(self, due: Due, answer: Answer, of: Identity, blob: BlobDigest) -> Certificate:
        toolchain, kernel = of
        outcome = answer.outcome
        return Certificate(
            toolchain=toolchain,
            kernel=kernel,
            blob=blob,
            variant=due.variant,
            runtime_env=due.runtime_env,
            verdict=verdict_of(answer),
            error=_finite(max(outcome.errors.values())) if outcome and outcome.errors else None,
            tolerance=outcome.tolerance if outcome else None,
            words=words_of(answer).encode("utf-8", "backslashreplace").decode(),
            seconds=outcome.seconds if outcome else None,
            when=datetime.now(timezone.utc).strftime(TIME),
            where=self._where,
        )


def _finite(error: float) -> float | None:
    return error if error < float("inf") else None

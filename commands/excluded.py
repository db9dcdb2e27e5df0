"""What is said of calls that a spec enumerates and the provider does not take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..cache.manifest import Excluded
from ..text.words import count, one_line
from .output import note, note_lines

if TYPE_CHECKING:
    from ..precompile.spec.spec import Spec


def excluded_lines(excluded: Sequence[Excluded]) -> Iterator[str]:
    """Yield a line for each reason: how many calls, the reason, and one of the calls."""
    by_reason: dict[str, list[Excluded]] = {}
    for one in excluded:
        by_reason.setdefault(one.reason, []).append(one)
    for reason, calls in by_reason.items():
        such = "" if len(calls) == 1 else "such as "
        yield f"{count(len(calls), 'call')} excluded: {reason} ({such}{one_line(calls[0].variant)})"


def note_doubts(spec: Spec, excluded: Sequence[Excluded]) -> None:
    """Ask whether a list was meant as one value, if calls of it are excluded."""
    note_lines(f"note: {doubt}" for doubt in spec.doubts(excluded))


def note_excluded(by_target: Sequence[Sequence[Excluded]]) -> bool:
    """Say how many calls are excluded for those who don't want any, and return whether there are."""
    number = sum(map(len, by_target))
    if number:
        verb = "is" if number == 1 else "are"
        note(f"error: {count(number, 'call')} {verb} excluded, which `--fail-on-excluded` does not allow")
        note("hint: `fa4-precompile plan SPEC --explain` lists them with the provider's reasons")
    return number > 0

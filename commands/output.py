"""How every command speaks: results on standard output, all else on standard error, and what it ends with."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterable, Sequence

import click

from ..cache.outcome import Finding, MissReason
from ..errors import UntrustedError

_BUILD_AGAIN = "build the specs again, which makes what is missing and replaces what is damaged"
MERGE = "`fa4-precompile merge` puts the other shards in; `build` without `--shard` compiles what they have"
_GET_AGAIN = "pull or unpack it again, which brings what is missing or damaged; nothing is built into a sealed cache"
_LET_READ = "let your user read what can't be read, and look again: a build does not mend it"

_AT_A_TIME = 1000
"""How many lines are written by one call of the system; there can be 20,000."""

_FINDINGS = 1
"""Exit code of a command that did what it was asked to, and found something wrong."""


def note(message: str) -> None:
    """Say something that is no result."""
    click.echo(message, err=True)


def print_lines(lines: Iterable[str]) -> None:
    """Print lines of a result."""
    left = iter(lines)
    while some := list(itertools.islice(left, _AT_A_TIME)):
        click.echo("\n".join(some))


def note_lines(lines: Iterable[str]) -> None:
    """Say lines that are no result."""
    for line in lines:
        note(line)


def print_json(document: object) -> None:
    """Print a result as one JSON document."""
    click.echo(json.dumps(document))


def print_documents(documents: Sequence[object]) -> None:
    """Print one JSON document: the object of the one target, or a list with one for each."""
    print_json(documents[0] if len(documents) == 1 else documents)


def end_with(findings: Sequence[Finding], is_sealed: bool = False) -> None:
    """End the command if something was found in a cache, with what mends it."""
    is_unreadable = any(finding.reason is MissReason.UNREADABLE for finding in findings)
    conclude(bool(findings), [finding.untrusted for finding in findings], mend(is_unreadable, is_sealed))


def mend(is_unreadable: bool, is_sealed: bool = False) -> str:
    """Return what to do about a cache that is not whole. What can't be read is mended first: it hides the rest."""
    return _LET_READ if is_unreadable else _GET_AGAIN if is_sealed else _BUILD_AGAIN


def conclude(is_wrong: bool, untrusted: Iterable[str] = (), hint: str = "") -> None:
    """End the command if something is wrong, or if one of these paths is one that others could have written.

    Here and nowhere else is it made what a command ends with that has done what it was asked to; what an error ends
    with is `Fa4PrecompileError.exit_code`.
    """
    for path in filter(None, untrusted):
        note(f"hint: {UntrustedError(path, '').hint}")
        sys.exit(UntrustedError.exit_code)
    if is_wrong:
        if hint:
            note(f"hint: {hint}")
        sys.exit(_FINDINGS)

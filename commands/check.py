"""`check`: is all of a spec here, and does it fit what is installed?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ..cache.certificates import uncertified
from ..cache.fit import Fit
from ..cache.store import Root
from ..cache.target import Target
from ..errors import UsageError
from ..loader.config import Config
from ..precompile.check import CheckResult, check_spec
from ..text.words import count
from .excluded import excluded_lines, note_doubts, note_excluded
from .inputs import existing_root, fingerprint_of, named_root, spec_and_targets
from .known_bad import doubt_lines, list_of
from .lending import lenders
from .options import EACH_ARCH
from .output import MERGE, conclude, mend, note, note_lines, print_documents, print_lines


def check(
    spec: str,
    cache: Path | None,
    target_name: str | None,
    allow_untrusted: bool,
    places: Sequence[str],
    expect: Sequence[str],
    trust_keys: Sequence[Path],
    fail_on_excluded: bool,
    canary: str | None,
    known_bad: Path | None,
    toolchain: str | None,
    as_json: bool,
) -> None:
    """Compare a spec with a cache and with what is installed, for each target."""
    parsed, targets = spec_and_targets(spec, target_name)
    _require_meant(canary, targets)
    known = list_of(known_bad)
    fit = Fit(toolchain) if toolchain else Config.without_roots().toolchain or Fit.EXACT
    # What must be vouched for is what the kernels come from: with `--from`, the places that are named.
    vouched = ((), ()) if places else (expect, trust_keys)
    root = named_root(cache) if places and named_root(cache).is_new else existing_root(cache, allow_untrusted, *vouched)
    with lenders(places, expect, trust_keys) as those:
        lent = those()
        results = [check_spec(root, parsed, target, lent, known, fit) for target in targets]
    unseen = [list(_unseen(root, result, canary)) for result in results]
    results = [replace(one, findings=[*one.findings, *more]) for one, more in zip(results, unseen, strict=True)]
    fingerprint = fingerprint_of(root)
    if as_json:
        print_documents([{**result.render(), "fingerprint": fingerprint or None} for result in results])
    else:
        for result in results:
            whole = f"{parsed.name} is here whole and fits: {count(result.kernels, 'kernel')}"
            lines = [*(result.findings or [whole]), *excluded_lines(result.excluded)]
            print_lines(f"{result.target.name}: {line}" for line in lines)
        if fingerprint:
            note(f"`{root.path}` has fingerprint {fingerprint}")
    for result in results:
        note_lines(f"{result.target.name}: {line}" for line in doubt_lines(result.known_bad))
        if result.inexact and not result.findings:
            differences = "; ".join(result.inexact)
            note(f"{result.target.name}: built by another toolchain than is installed: {differences}")
        note_doubts(parsed, result.excluded)
    refused = fail_on_excluded and note_excluded([result.excluded for result in results])
    found = [result for result in results if result.findings]
    is_only_left = all(result.is_only_left for result in found) and not root.is_sealed
    hint = MERGE if is_only_left else mend(any(result.is_unreadable for result in results), root.is_sealed)
    if any(unseen) and all(len(one.findings) == len(more) for one, more in zip(results, unseen, strict=True)):
        hint = "run `fa4-precompile canary` with this cache on such a GPU: docs/how-to/canary.md"
    conclude(bool(found), [result.untrusted for result in results], hint)
    conclude(refused)


def _require_meant(canary: str | None, targets: Sequence[Target]) -> None:
    """Raise `UsageError` for an arch that none of the targets has: what was meant would not be looked at."""
    archs = sorted({target.arch for target in targets})
    if canary not in (None, EACH_ARCH, *archs):
        hint = "write SPEC first, or `--require-canary=ARCH`"
        raise UsageError(f"no target of the spec is for `{canary}`, but for {', '.join(archs)}", hint)


def _unseen(root: Root, result: CheckResult, canary: str | None) -> Iterator[str]:
    """Yield which kernels of a target have not run on a GPU of its arch, if that is asked for."""
    arch = result.target.arch
    if canary in (EACH_ARCH, arch):
        yield from uncertified(root, result.built, arch)

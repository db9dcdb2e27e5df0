"""`audit`: are the kernels of a spec the right ones?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import UsageError
from ..precompile.audit.audit import PARTS, Audit, Effort
from ..precompile.audit.audit import audit as audit_one
from ..precompile.audit.findings import issue_lines
from ..precompile.audit.sound import Depth
from ..precompile.compile.pool import default_jobs
from ..providers.installed import installed_toolchain
from ..text.words import count
from .inputs import named_root, spec_and_targets
from .output import conclude, note, print_documents, print_lines
from .progress import shown_progress


def audit(
    spec: str,
    cache: Path | None,
    target_name: str | None,
    only: str | None,
    sample: int | None,
    seed: int,
    consider: int,
    per_key: int,
    perturb: int,
    jobs: int | None,
    time_limit: float,
    quiet: bool,
    as_json: bool,
) -> None:
    """Audit a spec for each target, one after another, and print what was found."""
    depth = Depth(consider, per_key, perturb)
    effort = Effort(_parts(only), sample, depth, seed, jobs or default_jobs(), time_limit)
    parsed, targets = spec_and_targets(spec, target_name)
    root = named_root(cache)
    if not root.is_new:
        root.require_layout()
    elif not quiet:
        note(f"`{root.path}` has no kernels: all are compiled, and none of a cache is compared")
    audits = []
    for target in targets:
        toolchain = installed_toolchain(parsed.provider, target.machine)
        audits.append(audit_one(parsed, target, toolchain, root, shown_progress(quiet), effort))
        if not as_json:
            print_lines(_finding_lines(audits[-1]))
        if not quiet:
            for line in _summary(audits[-1]):
                note(line)
    if as_json:
        print_documents([one.render() for one in audits])
    conclude(not all(one.is_clean for one in audits))


def _parts(only: str | None) -> Sequence[str]:
    """Return the parts that are named. Raises `UsageError`."""
    if only is None:
        return PARTS
    named = [name.strip() for name in only.split(",")]
    for name in named:
        if name not in PARTS:
            raise UsageError(f"`--only` can't be `{name}`", f"allowed: {', '.join(PARTS)}, with commas between them")
    return named


def _finding_lines(audit: Audit) -> Iterator[str]:
    yield from (f"\ncould not ask about {call}" for call in audit.broken)
    for part in audit.parts:
        for finding in part.findings:
            yield f"\n{part.name}: {next(lines := issue_lines(finding, audit.toolchain, audit.target))}"
            yield from lines


def _summary(audit: Audit) -> Iterator[str]:
    for part in audit.parts:
        counts = [f"{words} {number}" for words, number in part.counts.items()]
        yield f"{audit.spec} for {audit.target.name}, {part.name}: {', '.join(counts)}; findings {len(part.findings)}"
    yield f"the spec comes to {count(audit.kernels, 'kernel')}; {audit.seconds:.1f} s"

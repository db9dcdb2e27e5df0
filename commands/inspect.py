"""`ls`, `show`, `verify`, `check`: what is in a cache, and whether it is as it should be."""

from __future__ import annotations

from pathlib import Path

from ..cache.outcome import Finding
from ..cache.record import Record
from ..cache.store import Root
from ..cache.verify import verify_root
from ..errors import Fa4PrecompileError, RecordError, UntrustedError, UsageError
from ..text.words import count, megabytes
from .inputs import existing_root, spec_and_targets
from .output import conclude, end_with, note, note_lines, print_documents, print_json, print_lines
from .show import record_line, record_lines


def list_(cache: Path | None, allow_untrusted: bool, as_json: bool) -> None:
    """List the kernels of a cache."""
    records, findings = _records(existing_root(cache, allow_untrusted))
    if as_json:
        print_json([record.render() for record in records])
    else:
        print_lines(map(record_line, records))
    note_lines(map(_line, findings))
    note(f"{count(len(records), 'kernel')}, {megabytes(sum(record.blob_bytes for record in records))}")
    end_with(findings)


def show(kernel: str, cache: Path | None, allow_untrusted: bool, as_json: bool) -> None:
    """Show the kernel whose id begins so."""
    root = existing_root(cache, allow_untrusted)
    record = _only_record(root, kernel)
    if as_json:
        print_json(record.render())
    else:
        print_lines(record_lines(record, root))


def verify(cache: Path | None, allow_untrusted: bool, as_json: bool) -> None:
    """Check every byte of a cache."""
    root = existing_root(cache, allow_untrusted)
    result = verify_root(root)
    if as_json:
        print_json(result.render())
    else:
        print_lines(map(_line, result.findings))
        good = f"{count(result.records, 'kernel')}, {megabytes(result.bytes)}"
        state = "is not whole; as it should be" if result.findings else "is whole"
        note(f"`{root.path}` {state}: {good}")
    end_with(result.findings)


def check(spec: str, cache: Path | None, target_name: str | None, allow_untrusted: bool, as_json: bool) -> None:
    """Compare a spec with a cache and with what is installed, for each target."""
    from ..precompile.check import check_spec

    parsed, targets = spec_and_targets(spec, target_name)
    root = existing_root(cache, allow_untrusted)
    results = [check_spec(root, parsed, target) for target in targets]
    if as_json:
        print_documents([result.render() for result in results])
    else:
        for result in results:
            whole = f"{parsed.name} is here whole and fits: {count(result.kernels, 'kernel')}"
            print_lines(f"{result.target.name}: {line}" for line in result.findings or [whole])
    conclude(any(result.findings for result in results), [result.untrusted for result in results])


def _records(root: Root) -> tuple[list[Record], list[Finding]]:
    items = list(root.records())
    findings = [item for item in items if isinstance(item, Finding)]
    return [item for item in items if isinstance(item, Record)], list(dict.fromkeys(findings))


def _only_record(root: Root, kernel: str) -> Record:
    found: list[Record] = []
    faults: list[Fa4PrecompileError] = []
    for path in root.record_files(kernel.lower()):
        try:
            found.append(root.record_at(path))
        except (RecordError, UntrustedError) as error:
            faults.append(error)
    if faults and not found:
        raise faults[0]
    if not found:
        raise UsageError(
            f"no kernel of `{root.path}` has an id that begins with {kernel}", "`fa4-precompile ls` lists them"
        )
    if len(found) > 1:
        raise UsageError(f"{len(found)} kernels have an id that begins with {kernel}", "give more digits")
    return found[0]


def _line(finding: Finding) -> str:
    return f"{finding.path}: {finding.problem}"

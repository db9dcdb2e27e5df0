"""`repair`: drop what is damaged, and say what has to be built again."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..cache.outcome import Finding
from ..cache.repair import Rebuild, Repaired, repair_root
from ..cache.store import Root
from ..cache.target import MACHINES
from ..cache.toolchain import Toolchain
from ..errors import MachineError, UsageError
from ..providers.installed import installed_toolchain
from ..providers.registry import DEFAULT
from ..text.words import count, megabytes
from .inputs import existing_root, spec_and_targets
from .lines import finding_line
from .options import TIME_LIMIT_S
from .output import conclude, end_with, note, note_lines, print_json, print_lines

if TYPE_CHECKING:
    from ..cache.target import Target
    from ..precompile.report import BuildReport
    from ..precompile.spec.spec import Spec
    from ..providers.protocol import Provider

_Named = list[tuple["Spec", list["Target"]]]


def repair(cache: Path | None, specs: Sequence[str], dry_run: bool, as_json: bool) -> None:
    """Drop what is not as it should be, or say what would go; then build."""
    if dry_run and specs:
        raise UsageError("`--dry-run` builds nothing", "leave out `--build`, or `--dry-run`")
    named = [spec_and_targets(spec, None) for spec in specs]
    root = existing_root(cache, allow_untrusted=False)
    installed = list(_installed([DEFAULT, *(spec.provider for spec, _ in named)]))
    done = repair_root(root, not dry_run, installed)
    commands = [_command(build, root, named) for build in done.rebuild]
    if not as_json:
        print_lines(f"{one.path}: {one.reason}" for one in done.dropped)
    note_lines(map(finding_line, done.remaining))
    note_lines(f"{path}: has changed meanwhile, and stays" for path in done.changed)
    note(_sentence(done, root, dry_run))
    note_lines(_rebuild_lines(done, commands))
    reports = _build(named, root)
    if as_json:
        print_json(_render(done, commands, reports, dry_run))
    end_with(done.remaining)
    conclude(bool(done.changed), hint="run `repair` again when no build is going on")
    conclude(dry_run and bool(done.dropped or done.written), hint="`repair` without `--dry-run` drops it")
    conclude(any(report.failed for report in reports))


def _installed(providers: Sequence[Provider]) -> Iterator[Toolchain]:
    """Yield the toolchains whose files can be written again."""
    for provider, machine in itertools.product(dict.fromkeys(providers), MACHINES):
        try:
            yield installed_toolchain(provider, machine)
        except MachineError:  # nothing can be compiled for these here, and so nothing has to be known of it
            continue


def _build(named: _Named, root: Root) -> list[BuildReport]:
    if not named:
        return []
    from .build import build_all

    return [
        report for spec, targets in named for report in build_all(spec, targets, root, None, TIME_LIMIT_S, quiet=False)
    ]


def _sentence(done: Repaired, root: Root, dry_run: bool) -> str:
    findings = _counted(done.remaining)
    if not done.dropped and not done.written:
        return f"`{root.path}`: nothing is damaged{findings}"
    files = f"{count(len(done.dropped), 'file')}, of {count(done.kernels, 'kernel')}, {megabytes(done.bytes)}"
    written = f"; {count(len(done.written), 'lost toolchain')} written again" if done.written else ""
    return f"`{root.path}`: {files} {'would go' if dry_run else 'dropped'}{written}{findings}"


def _counted(remaining: Sequence[Finding]) -> str:
    return f"; {count(len(remaining), 'finding')} that nobody but you can mend" if remaining else ""


def _rebuild_lines(done: Repaired, commands: Sequence[str]) -> Iterator[str]:
    if commands:
        yield f"{count(len(commands), 'build')} to be made again:"
    for build, command in zip(done.rebuild, commands, strict=True):
        what = build.spec or f"a spec whose digest begins with {build.spec_digest[:12]}"
        yield f"  {what} for {build.target}, which toolchain {build.toolchain[:12]} had built:"
        yield f"    {command}"


def _command(build: Rebuild, root: Root, named: _Named) -> str:
    """Return the command that makes a build again. Where a spec's file is, a cache does not know."""
    from ..precompile.spec.spec import shipped_specs

    name = build.spec or next((spec.name for spec, _ in named if spec.digest.startswith(build.spec_digest)), "")
    spec = shlex.quote(name if name in shipped_specs() else f"{name}.yaml") if name else "SPEC"
    return f"fa4-precompile build {spec} --target {build.target} --cache {shlex.quote(str(root.path))}"


def _render(
    done: Repaired, commands: Sequence[str], reports: Sequence[BuildReport], dry_run: bool
) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "dropped": [{"path": one.path, "bytes": one.size, "problem": one.reason} for one in done.dropped],
        "kernels": done.kernels,
        "bytes": done.bytes,
        "written": list(done.written),
        "rebuild": [
            {**build._asdict(), "command": command} for build, command in zip(done.rebuild, commands, strict=True)
        ],
        "remaining": [{"path": finding.path, "problem": finding.problem} for finding in done.remaining],
        "changed": list(done.changed),
        "built": [report.render() for report in reports],
    }

"""`gc`: drop old builds, and what nothing needs any more."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..cache.gc import Collected, Limits, collect
from ..cache.store import Root
from ..text.words import count, megabytes
from .inputs import existing_root
from .output import conclude, note, print_json, print_lines

if TYPE_CHECKING:
    from ..cache.manifest import Manifest


def gc(
    cache: Path | None,
    most_bytes: int | None,
    most_seconds: float | None,
    newest: int | None,
    keep: Sequence[str],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Drop what may not stay, or say what would go."""
    kept = _Kept(keep)
    root = existing_root(cache, allow_untrusted=False)
    found = collect(root, Limits(most_bytes, most_seconds, newest, kept), not dry_run)
    if as_json:
        print_json(_render(found, dry_run))
    elif dry_run:
        dates = {
            build.path: f", last built {time.strftime('%Y-%m-%d', time.localtime(build.built))}"
            for build in found.builds
        }
        print_lines(f"{one.path}: {one.reason}{dates.get(one.path, '')}" for one in found.dropped)
    for spec in kept.unmatched:
        note(f"`{spec}` has no build in `{root.path}`")
    note(_sentence(found, root, dry_run))
    conclude(not found.fits, hint="what was built within the hour and what `--keep` names stays, whatever the limit")


class _Kept:
    """Says whether a build is one of some specs: as they are now, or of their name as they were."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.unmatched: dict[str, None] = {}
        self._specs: list[tuple[str, str, str]] = []
        if arguments:
            from ..precompile.spec.spec import find_spec, read_spec, target_book

            specs = [read_spec(find_spec(argument), target_book()) for argument in arguments]
            self._specs = [(argument, spec.name, spec.digest) for argument, spec in zip(arguments, specs, strict=True)]
            self.unmatched = dict.fromkeys(arguments)

    def __call__(self, manifest: Manifest) -> bool:
        matching = [
            argument
            for argument, name, digest in self._specs
            if manifest.spec == name or manifest.spec_digest == digest
        ]
        for argument in matching:
            self.unmatched.pop(argument, None)
        return bool(matching)


def _sentence(found: Collected, root: Root, dry_run: bool) -> str:
    gone = [count(len(found.builds), "build"), count(found.kernels, "kernel"), megabytes(found.bytes)]
    left = [count(found.left_builds, "build"), count(found.left_kernels, "kernel"), megabytes(found.left_bytes)]
    word, rest = ("would go", "would remain") if dry_run else ("dropped", "remain")
    sentence = f"{', '.join(gone)} {word}; {', '.join(left)} {rest} in `{root.path}`"
    return sentence if found.fits else f"{sentence}, which is more than `--max-size`"


def _render(found: Collected, dry_run: bool) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "builds": [
            {
                "spec": build.manifest.spec,
                "target": build.manifest.target.render(),
                "toolchain": build.manifest.toolchain,
                "manifest": build.path,
                "built": round(build.built, 3),
            }
            for build in found.builds
        ],
        "kernels": found.kernels,
        "bytes": found.bytes,
        "files": [{"path": one.path, "bytes": one.size, "reason": one.reason} for one in found.dropped],
        "remaining": {"builds": found.left_builds, "kernels": found.left_kernels, "bytes": found.left_bytes},
        "fits": found.fits,
    }

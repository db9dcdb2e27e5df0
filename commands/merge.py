"""`merge`: parts of builds that several machines made, put together in one cache."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from ..cache.contents import Contents
from ..cache.manifest import Manifest
from ..carry.merge import Merged, Place
from ..carry.merge import merge as merge_places
from ..carry.vouched import open_vouched
from ..text.words import count, lacking
from .carrying import new_files
from .inputs import fingerprint_of, named_root, vouchers
from .moving import progress
from .output import conclude, note, print_json, print_lines


def merge(
    into: Path,
    places: Sequence[str],
    expect: Sequence[str],
    trust_keys: Sequence[Path],
    as_json: bool,
) -> None:
    """Take what the places have, unite the builds that they have parts of, and say of each whether it is complete."""
    root, believed = named_root(into), vouchers(expect, trust_keys)
    with ExitStack() as opened:
        those: list[Place] = []
        for place in places:
            source, contents, _ = open_vouched(place, believed)
            opened.callback(source.close)
            those.append(Place(source, contents))
        everything = Contents.of(entry for place in those for entry in place.contents.entries.values())
        with progress("merging", everything) as arrived:
            done = merge_places(those, root, note, arrived)
    fingerprint = fingerprint_of(root)
    if done.others:
        note(f"{count(done.others, 'kernel')} came with other bytes, too: what was here stays, else one was kept")
    if as_json:
        said = {"cache": str(root.path), "fingerprint": fingerprint or None, "places": len(those)}
        print_json(said | _document(done) | {"builds": [_build_document(build) for build in done.builds]})
    else:
        print_lines(map(_line, done.builds))
        new = new_files(done.came, done.bytes)
        note(f"merged {count(len(those), 'place')} ({new}) into `{root.path}`: {fingerprint or 'no fingerprint'}")
    conclude(not all(build.complete for build in done.builds))


def _line(build: Manifest) -> str:
    state = "complete" if build.complete else f"not complete, {lacking(build.failed, build.left)}"
    return f"{build.spec} for {build.target.name}: {count(len(build.kernels), 'kernel')}, {state}"


def _document(done: Merged) -> dict[str, object]:
    return {"new_files": done.came, "new_bytes": done.bytes, "other_bytes": done.others}


def _build_document(build: Manifest) -> dict[str, object]:
    return {
        "spec": build.spec,
        "target": build.target.render(),
        "toolchain": build.toolchain,
        "kernels": len(build.kernels),
        "complete": build.complete,
        "failed": dict(build.failed),
        "left": dict(build.left),
    }

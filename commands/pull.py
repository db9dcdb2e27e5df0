"""`pull`: a cache, or some builds of it, from a URL, an archive or a folder into the cache."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from ..cache.contents import Contents
from ..cache.publish import Publisher
from ..cache.store import Root
from ..carry.chosen import ChosenSource, Part
from ..carry.receive import Received, receive, receive_all
from ..carry.source import Source
from ..carry.vouched import open_vouched
from ..errors import CarryError, Fa4PrecompileError, RefusedError
from .carrying import counted, document, new_files, require_sealed
from .inputs import root_to_fill, spec_digest, vouchers
from .moving import Moving, Watched
from .output import print_json, print_lines


def pull(
    place: str,
    cache: Path | None,
    expect: Sequence[str],
    trust_keys: Sequence[Path],
    spec: str | None,
    target_name: str | None,
    arch: str | None,
    as_json: bool,
) -> None:
    """Take what of a cache is not here yet. What is expected is compared before anything else is fetched."""
    root = root_to_fill(cache, expect, trust_keys)
    part = Part(spec_digest(spec), target_name, arch)
    there, listed, signature = open_vouched(place, vouchers(expect, trust_keys))
    with closing(there):
        wanted, moved = _received(there, listed, signature, part, root)
    if part.is_all:
        require_sealed(root, moved, expect, trust_keys)
    if as_json:
        said = {"place": there.name, "place_fingerprint": listed.fingerprint, "cache": str(root.path)}
        print_json(document(wanted) | said | {"new_files": moved.came, "new_bytes": moved.bytes})
    else:
        new = new_files(moved.came, moved.bytes)
        of = "" if part.is_all else f", some of {listed.fingerprint}"
        print_lines(
            [f"pulled {counted(wanted)} ({new}) from `{there.name}` into `{root.path}`: {wanted.fingerprint}{of}"]
        )


def _received(there: Source, listed: Contents, signature: bytes, part: Part, root: Root) -> tuple[Contents, Received]:
    """Take what is wanted, and return what that is and what of it came."""
    moving = Moving("pulling")
    try:
        source = ChosenSource(there, listed, part)
        watched = Watched(source, moving)
        if part.is_all:
            moved = receive_all(watched, root, listed, signature, moving.moved)
        else:  # of several parts one folder is to have all
            moved = receive(watched, Publisher(root), source.wanted, moving.moved)
    except RefusedError:
        if _has_changed(there, listed):
            raise CarryError(there.name, "another cache was pushed there while this one was read") from None
        raise
    finally:
        moving.finish()
    return source.wanted, moved


def _has_changed(there: Source, listed: Contents) -> bool:
    try:
        return there.contents().fingerprint != listed.fingerprint
    except Fa4PrecompileError:
        return False

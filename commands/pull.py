"""`pull`: a cache, or some builds of it, from a URL, an archive or a folder into the cache."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

from ..cache.contents import Contents
from ..cache.listing import list_contents
from ..cache.publish import Publisher
from ..cache.store import Root
from ..carry.part import Part, PartSource
from ..carry.receive import Received, receive
from ..carry.source import Source
from ..carry.urls import open_source
from ..errors import CarryError, Fa4PrecompileError, RecordError, RefusedError, UntrustedError, UsageError
from .inputs import named_root
from .moving import Moving, Watched, moved_document, moved_line
from .output import note, print_json

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


def pull(
    place: str,
    cache: Path | None,
    expect: str | None,
    spec: str | None,
    target_name: str | None,
    arch: str | None,
    as_json: bool,
) -> None:
    """Take what of a cache is not here yet. What is expected is compared before anything else is fetched."""
    if expect is not None and _FINGERPRINT.fullmatch(expect) is None:
        raise UsageError(f"`{expect}` is no fingerprint", "it has 64 hexadecimal digits; `fingerprint` prints one")
    root = named_root(cache)
    part = Part(spec, target_name, arch)
    with closing(open_source(place)) as there:
        listed = _listed(there)
        if expect is not None and listed.fingerprint != expect:
            raise RefusedError(there.name, f"its fingerprint is {listed.fingerprint}, and {expect} is expected")
        wanted, moved = _received(there, listed, part, root)
    if as_json:
        print_json(moved_document(there.name, root, wanted, moved, listed.fingerprint))
    else:
        line = moved_line(wanted, moved, "came")
        of_what = "fingerprint" if part.is_all else f"the builds of {part} of what has the fingerprint"
        note(f"`{root.path}` has what is at `{there.name}`: {line}; {of_what} {listed.fingerprint}")


def _listed(there: Source) -> Contents:
    try:
        return there.contents()
    except RecordError as error:
        raise RefusedError(there.name, f"its list of contents {error.reason}") from None


def _received(there: Source, listed: Contents, part: Part, root: Root) -> tuple[Contents, Received]:
    """Take what is wanted, and return what that is and what of it came."""
    moving = Moving("pulling")
    publisher = Publisher(root)
    try:
        source = PartSource(there, listed, part)
        signature = source.signature()
        moved = receive(Watched(source, moving), publisher, source.wanted, moving.moved)
    except RefusedError:
        if _has_changed(there, listed):
            raise CarryError(there.name, "another cache was pushed there while this one was read") from None
        raise
    finally:
        moving.finish()
    if _is_just(root, listed):
        publisher.publish_seal(listed.render(), signature)
        publisher.sync()
    return source.wanted, moved


def _is_just(root: Root, listed: Contents) -> bool:
    """Return whether all of a list, and nothing else, is in a cache; of what is damaged there `verify` speaks."""
    try:
        return list_contents(root).fingerprint == listed.fingerprint
    except (RecordError, UntrustedError):
        return False


def _has_changed(there: Source, listed: Contents) -> bool:
    try:
        return there.contents().fingerprint != listed.fingerprint
    except Fa4PrecompileError:
        return False

"""`push`: a cache, or some builds of it, to a URL."""

from __future__ import annotations

from pathlib import Path

from ..carry.part import Part, PartSource
from ..carry.remote import shown
from ..carry.root import RootSource
from ..carry.urls import push as push_to
from .inputs import existing_root
from .moving import Moving, Watched, moved_document, moved_line
from .output import note, print_json


def push(
    place: str, cache: Path | None, spec: str | None, target_name: str | None, arch: str | None, as_json: bool
) -> None:
    """Write what of a cache is not there yet, and its list last."""
    root = existing_root(cache, allow_untrusted=False)
    part = Part(spec, target_name, arch)
    moving = Moving("pushing")
    there = RootSource(root)
    source = PartSource(there, there.contents(), part)
    wanted = source.wanted
    signature = source.signature() if part.is_all else b""
    try:
        moved = push_to(Watched(source, moving), wanted, signature, place, moving.moved)
    finally:
        moving.finish()
    if as_json:
        print_json(moved_document(shown(place), root, wanted, moved, wanted.fingerprint))
    else:
        line = moved_line(wanted, moved, "uploaded")
        note(f"`{shown(place)}` has what is in `{root.path}`: {line}; fingerprint {wanted.fingerprint}")

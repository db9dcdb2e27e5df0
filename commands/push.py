"""`push`: a cache, or some of its builds, to a URL."""

from __future__ import annotations

from pathlib import Path

from ..carry.receive import require_whole
from ..carry.urls import push as push_to
from .carrying import counted, document, new_files
from .inputs import chosen, existing_root
from .moving import Moving
from .output import print_json, print_lines


def push(
    place: str,
    cache: Path | None,
    spec: str | None,
    target: str | None,
    arch: str | None,
    allow_untrusted: bool,
    as_json: bool,
) -> None:
    """Write what of a cache is not there yet, and its list last."""
    root = existing_root(cache, allow_untrusted)
    source = chosen(root, spec, target, arch)
    contents, signature = source.wanted, source.signature_of_wanted()
    require_whole(source, contents)
    moving = Moving("pushing")
    moving.expect(len(contents.entries), contents.size)
    try:
        sent = push_to(source, contents, signature, place, moving.moved)
    finally:
        moving.finish()
    if as_json:
        print_json(document(contents) | {"place": sent.place, "new_files": sent.came, "new_bytes": sent.bytes})
    else:
        new = new_files(sent.came, sent.bytes)
        print_lines([f"pushed {counted(contents)} ({new}) to `{sent.place}`: {contents.fingerprint}"])

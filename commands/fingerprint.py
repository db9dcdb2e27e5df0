"""`fingerprint`: the one name of all that is in a cache."""

from __future__ import annotations

from pathlib import Path

from ..cache.listing import list_contents
from .inputs import existing_root
from .output import print_json, print_lines


def fingerprint(cache: Path | None, allow_untrusted: bool, as_list: bool, as_json: bool) -> None:
    """Print a cache's fingerprint, or the list that it is the SHA-256 of."""
    root = existing_root(cache, allow_untrusted)
    contents = list_contents(root)
    if as_json:
        files = [entry._asdict() for entry in contents.entries.values()]
        print_json({"fingerprint": contents.fingerprint, "sealed": root.sealed is not None, "files": files})
    elif as_list:
        print_lines(contents.render().decode().splitlines())
    else:
        print_lines([contents.fingerprint])

"""`seal`: list all that is in a cache, beside it, and sign the list."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click

from ..cache.contents import Contents
from ..cache.layout import SEAL
from ..cache.listing import list_contents
from ..cache.manifest import Manifest
from ..cache.publish import Publisher
from ..cache.store import Root
from ..cache.verify import verify_root
from ..errors import CacheError
from ..text.words import count, lacking, megabytes
from .inputs import named_root
from .lines import finding_line
from .output import end_with, note, print_json, print_lines


def seal(cache: Path | None, keys: Sequence[Path], as_json: bool) -> None:
    """Verify a cache and seal it; of one that is sealed, verify that, and add signatures."""
    root = named_root(cache)
    root.require_layout()
    result = verify_root(root)
    print_lines(map(finding_line, result.findings))
    end_with(result.findings)
    contents = list_contents(root)
    signature = _signed(root, contents.fingerprint, keys)
    publisher = Publisher(root)
    if root.sealed is None:
        _put(publisher, contents, signature)
    elif keys:
        publisher.publish_signature(signature)
    publisher.sync()
    if as_json:
        print_json({"fingerprint": contents.fingerprint, "files": len(contents.entries), "bytes": contents.size})
        return
    note(
        f"`{root.path}` is sealed{' and signed' if signature else ''}: {count(len(contents.entries), 'file')}, "
        f"{count(result.records, 'kernel')}, {megabytes(contents.size)}"
    )
    for manifest in root.manifests():
        if isinstance(manifest, Manifest) and not manifest.complete:
            what = f"{manifest.spec} for {manifest.target.name}"
            note(f"warning: {what} is not complete: {lacking(manifest.failed, manifest.left)}")
    print_lines([contents.fingerprint])


def _put(publisher: Publisher, contents: Contents, signature: bytes) -> None:
    """Publish a seal of what stays: `gc` leaves alone what is confirmed, and a builder may be in its last step.

    Raises `CacheError` if others have changed the cache meanwhile; then it is not sealed.
    """
    root = publisher.root
    if all(map(publisher.confirm, contents.entries)):
        publisher.publish_seal(contents.render(), signature)
        if len(root.present(contents.entries.values())) == len(contents.entries):
            return
        (root.path / SEAL).unlink(missing_ok=True)
    hint = "seal it again when no build and no `gc` is at work"
    raise CacheError(str(root.path), "was changed while it was sealed", hint)


def _signed(root: Root, fingerprint: str, keys: Sequence[Path]) -> bytes:
    """Return the signatures that there are over a seal, with those by some keys; nothing if there is none."""
    envelope = root.signature()
    if keys:
        from ..cache.signature import sign

        for key in keys:
            envelope = sign(fingerprint, key, partial(_password, key), envelope)
    return envelope


def _password(key: Path) -> str:
    word: str = click.prompt(f"password of `{key}`", hide_input=True, err=True)
    return word

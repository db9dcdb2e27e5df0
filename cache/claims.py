"""What records and libraries say of their blobs, and which blobs are not as they say."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import NamedTuple

from ..errors import CacheError, RecordError, UntrustedError
from . import layout
from .key import BlobDigest
from .kinds import LIBRARY, RECORD
from .library import Library
from .outcome import FAULTS, Finding, finding_of
from .record import Record
from .store import NO_BLOB, WRONG_BLOB, Root
from .trust import Folder


class Claim(NamedTuple):
    """What a record or library says of its blob, and where it is. There can be many, and a record is large."""

    path: str
    toolchain: str
    blob: BlobDigest
    blob_bytes: int

    @classmethod
    def of(cls, item: Record | Library) -> Claim:
        """Return what a record or library claims."""
        path = RECORD.place(item) if isinstance(item, Record) else LIBRARY.place(item)
        return cls(path, item.toolchain, item.blob, item.blob_bytes)


def wrong_blobs(root: Root, claims: Iterable[Claim], whole: bool) -> dict[Claim, Finding]:
    """Return which blobs are not there, not trusted or not of their size, or if read as a `whole`, of their bytes.

    Each folder of blobs is opened once, not once a blob. Never raises for what is on disk.
    """
    found: dict[Claim, Finding] = {}
    by_folder = groupby(sorted(claims, key=lambda claim: claim.blob), key=lambda claim: claim.blob[:2])
    for _, group in by_folder:
        found |= _wrong_in_folder(root, list(group), _require_bytes if whole else _require_size)
    return found


def _wrong_in_folder(root: Root, claims: list[Claim], require: Callable[[Folder, Claim], None]) -> dict[Claim, Finding]:
    found: dict[Claim, Finding] = {}
    try:
        with root.opened() as top, top.below(layout.blob_path(claims[0].blob)) as (folder, _):
            for claim in claims:
                try:
                    require(folder, claim)
                except FAULTS as error:
                    found[claim] = _finding(root, error, claim.blob)
    except FAULTS as error:  # on the way to them
        found = {claim: _finding(root, error, claim.blob) for claim in claims} | found
    return found


def _finding(root: Root, error: RecordError | UntrustedError | CacheError | OSError, blob: BlobDigest) -> Finding:
    relative = layout.blob_path(blob)
    is_gone = isinstance(error, FileNotFoundError)
    return finding_of(RecordError(relative, NO_BLOB) if is_gone else error, root.path, relative)


def _require_size(folder: Folder, claim: Claim) -> None:
    if folder.size(claim.blob) != claim.blob_bytes:
        raise RecordError(layout.blob_path(claim.blob), WRONG_BLOB)


def _require_bytes(folder: Folder, claim: Claim) -> None:
    if folder.digest(claim.blob, claim.blob_bytes) != (claim.blob_bytes, claim.blob):
        raise RecordError(layout.blob_path(claim.blob), WRONG_BLOB)

"""What a person names as a place for caches: a folder, an archive, a URL of either, or one in a registry.

The one place that opens it.

An archive is what ends in `.tar.zst`, also in a URL; any other URL is that of a tree.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ..cache.contents import Contents
from ..cache.seal import NOBODY, Vouchers
from ..cache.store import Root
from ..errors import MachineError, UsageError
from .patience import Patience
from .ranged import RangedFile
from .remote import Remote, parts_of, scheme_of
from .remote_file import RemoteFile
from .root import RootSource
from .source import Ranged, Source
from .tree import TreeSource, push_tree

ARCHIVE = ".tar.zst"

_REGISTRY = frozenset({"oci", "oci+http"})


@dataclass(frozen=True)
class Sent:
    """What was pushed: where just this can be had, by digest where there is one; files and bytes that were written."""

    place: str
    came: int
    bytes: int


def open_source(place: str, vouchers: Vouchers = NOBODY, patience: Patience | None = None) -> Source:
    """Return what a person names as a source. `vouchers` are for a folder, read by them; `patience` is for a URL.

    Raises `UsageError` for what names nothing, `MachineError` if a package is missing that its scheme needs.
    """
    scheme = scheme_of(place)
    if scheme in _REGISTRY:
        from .oci import open_oci

        return open_oci(place)
    if scheme:
        remote = Remote(place, patience)
        return _archive(RemoteFile(remote)) if is_archive(place) else TreeSource(remote)
    path = Path(place)
    if path.is_dir():
        return RootSource(Root(path.absolute(), vouchers=vouchers))
    if path.is_file():
        return _archive(RangedFile(path))
    raise UsageError(
        f"`{place}` is no folder, no file and no URL",
        f"name a cache directory, an archive (`NAME{ARCHIVE}`), or a URL: `s3://`, `gs://`, `https://`, `oci://`, ...",
    )


def is_archive(place: str) -> bool:
    """Return whether a place is that of an archive, by its name."""
    path = parts_of(place).path if scheme_of(place) else place
    return path.endswith(ARCHIVE)


def _archive(ranged: Ranged) -> Source:
    from .packed import PackSource

    try:
        return PackSource(ranged)
    except BaseException:
        ranged.close()
        raise


def push(source: Source, contents: Contents, signature: bytes, place: str, arrived: Callable[[int], None]) -> Sent:
    """Write some files of a source to a URL, and the signature over the list of just these, and say what moved.

    `arrived` is told the sizes of files, also of those that are there already: of all of them in the end. Raises as
    `open_source`, and what writing raises.
    """
    scheme = scheme_of(place)
    if scheme in _REGISTRY:
        from .oci import push_oci
        from .oci_url import Place

        pushed = push_oci(source, contents, signature, place, arrived)
        by_digest = replace(Place.parse(place), tag="", digest=pushed.digest)
        return Sent(str(by_digest), pushed.files, pushed.bytes)
    if not scheme:
        raise UsageError(
            f"`{place}` is no URL",
            "for a folder or archive on this machine there are `pull` from there and `pack`; "
            "`file:///PATH` is the URL of one",
        )
    remote = Remote(place)
    if is_archive(place):
        return Sent(remote.name, len(contents.entries), push_archive(source, contents, signature, remote, arrived))
    moved = push_tree(source, contents, signature, remote, arrived)
    return Sent(remote.name, moved.came, moved.bytes)


def push_archive(
    source: Source, contents: Contents, signature: bytes, remote: Remote, arrived: Callable[[int], None]
) -> int:
    """Write an archive to a URL, all of it, and return its size. It is made here first, in a temporary file."""
    from .pack import write_pack

    remote.require_writable()
    try:
        with tempfile.TemporaryFile() as out:  # without a name: nothing stays if this process is killed
            size = write_pack(source, contents, out, signature, arrived)
            out.flush()
            remote.write_file(Path(f"/proc/self/fd/{out.fileno()}"))
    except OSError as error:
        raise MachineError(
            f"an archive for `{remote.name}` can't be written: {error.strerror}",
            "free some space where `TMPDIR` says, or set it",
        ) from None
    return size

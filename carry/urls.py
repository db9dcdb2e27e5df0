"""What a person names as a place for caches: a folder, an archive, or a URL of either. The one place that opens it.

An archive is what ends in `.tar.zst`, also in a URL; any other URL is that of a tree.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from ..cache.store import Root
from ..cache.trust import Trust
from ..errors import UsageError
from .patience import Patience
from .remote import Remote, scheme_of, shown
from .remote_file import RemoteFile
from .root import RootSource
from .source import Ranged, Source
from .tree import TreeSource

ARCHIVE = ".tar.zst"


def open_source(place: str, trust: Trust = Trust.OWN, patience: Patience | None = None) -> Source:
    """Return what a person names as a source. `trust` is for a folder, `patience` for a URL.

    Raises `UsageError` for what names nothing, `MachineError` if a package is missing that its scheme needs.
    """
    scheme = scheme_of(place)
    if scheme == "oci":
        from .oci import open_oci

        return open_oci(place)
    if scheme:
        remote = Remote(place, patience)
        return _archive(RemoteFile(remote)) if is_archive(place) else TreeSource(remote)
    path = Path(place)
    if path.is_dir():
        return RootSource(Root(path.absolute(), trust))
    if path.is_file():
        return _archive(RemoteFile(Remote(path.absolute().as_uri())))
    raise UsageError(
        f"`{place}` is no folder, no file and no URL",
        f"name a cache directory, an archive (`NAME{ARCHIVE}`), or a URL: `s3://`, `gs://`, `https://`, `oci://`, ...",
    )


def is_archive(place: str) -> bool:
    """Return whether a place is that of an archive, by its name."""
    path = urlsplit(place).path if scheme_of(place) else place
    return path.endswith(ARCHIVE)


def named(place: str) -> str:
    """Return what messages call a place: never with credentials."""
    return shown(place)

"""One repository of an OCI registry: its manifests and blobs. What they mean is not known here."""

from __future__ import annotations

import hashlib
import tempfile
from typing import IO, TYPE_CHECKING, NamedTuple
from urllib.parse import urlencode, urlsplit

from ..errors import CarryError, MachineError, RefusedError
from .oci_url import Place
from .wire import NotThere, Wire, read_at_most, read_exactly

if TYPE_CHECKING:
    from requests import Response

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MOST_MANIFEST_BYTES = 4 << 20
"""How large a manifest can be, as the OCI distribution specification has it."""

_ACCEPTED = (  # the first, and others only to be told that it is one of them
    f"{MANIFEST}, application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.v2+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json"
)
_PIECE = 1 << 20
_END_BYTES = 1 << 16
"""What is read of a blob's end at once: the table of a pack of 8,000 files, or all of a small pack."""


class Blob(NamedTuple):
    """A blob of a registry: `sha256:` and its digest, and its size in bytes."""

    digest: str
    size: int


class Registry:
    """One repository of a registry. Creating the object sends nothing."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._wire = Wire(place)

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()

    # Reading

    def manifest(self) -> bytes:
        """Return the manifest, which has the digest that it was asked for by.

        Raises `NotThere`, `CarryError`, or `RefusedError` for what is no manifest.
        """
        return self._wire.call("GET", f"manifests/{self.place.reference}", self._manifest, Accept=_ACCEPTED)

    def has(self, blob: Blob) -> bool:
        """Return whether a blob is there."""
        try:
            return self._wire.call("HEAD", f"blobs/{blob.digest}", lambda _answer: True)
        except NotThere:
            return False

    def whole(self, blob: Blob) -> bytes:
        """Return the bytes of a blob that is small, which have its digest. Raises `RefusedError` for others."""

        def take(answer: Response) -> bytes:
            data = read_at_most(answer, blob.size)
            if data is None:
                raise self.refused(f"blob {blob.digest} has more bytes than the manifest states")
            return data

        data = self._wire.call("GET", f"blobs/{blob.digest}", take, **{"Accept-Encoding": "identity"})
        if len(data) != blob.size or digest_of(data) != blob.digest:
            raise self.refused(f"blob {blob.digest} has other bytes than its digest says")
        return data

    def piece(self, blob: Blob, start: int, length: int, rest: IO[bytes]) -> bytes | None:
        """Return a piece of a blob. If the registry has none, write the whole blob into `rest`, and return None."""
        last = start + length - 1

        def take(answer: Response) -> bytes | None:
            if answer.status_code != 206:
                self._spool(answer, blob, rest)
                return None
            data = read_exactly(answer, length)
            if not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-{last}/"):
                raise self.refused(f"of blob {blob.digest} another piece comes than was asked for")
            return data

        headers = {"Range": f"bytes={start}-{last}", "Accept-Encoding": "identity"}
        return self._wire.call("GET", f"blobs/{blob.digest}", take, **headers)

    # Writing

    def upload(self, blob: Blob, data: IO[bytes]) -> bool:
        """Upload a blob unless it is there; return whether it was uploaded."""
        if self.has(blob):
            return False
        self._wire.again(lambda: self._upload(blob, data))
        return True

    def tag(self, manifest: bytes) -> None:
        """Let the tag name a manifest, all of whose blobs are there."""
        digest = digest_of(manifest)

        def take(answer: Response) -> None:
            if answer.headers.get("Docker-Content-Digest", digest) != digest:
                raise self.refused("the registry has kept another manifest than it was sent")

        url = self.place.url(f"manifests/{self.place.tag}")
        self._wire.again(lambda: self._wire.once("PUT", url, take, {"Content-Type": MANIFEST}, manifest))

    def refused(self, reason: str) -> RefusedError:
        """Return the error to raise for what is not what it says."""
        return RefusedError(str(self.place), reason)

    # How it is done

    def _manifest(self, answer: Response) -> bytes:
        data = read_at_most(answer, MOST_MANIFEST_BYTES)  # first: a head that is cut off has no type
        if data is None:
            raise self.refused(f"its manifest has more than {MOST_MANIFEST_BYTES:,} bytes")
        kind = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        if kind != MANIFEST:
            raise self.refused(f"it is a {kind[:100]!r}, not the manifest of an artifact")
        stated = self.place.digest or answer.headers.get("Docker-Content-Digest", "")
        if stated.startswith("sha256:") and stated != digest_of(data):
            raise self.refused(f"its manifest has not the digest {stated[:100]}")
        return data

    def _spool(self, answer: Response, blob: Blob, rest: IO[bytes]) -> None:
        """Keep the whole of a blob. It may be done twice."""
        rest.seek(0)
        digest, left = hashlib.sha256(), blob.size
        while left:
            piece = read_exactly(answer, min(_PIECE, left))
            self._keep(piece, rest)
            digest.update(piece)
            left -= len(piece)
        if f"sha256:{digest.hexdigest()}" != blob.digest or read_at_most(answer, 0) is None:
            raise self.refused(f"blob {blob.digest} has other bytes than its digest says")

    def _keep(self, piece: bytes, rest: IO[bytes]) -> None:
        try:
            rest.write(piece)
        except OSError as error:
            message = f"a registry without pieces sends a whole layer, which can't be kept: {error.strerror}"
            raise MachineError(message, "free some space where `TMPDIR` says, or set it") from None

    def _upload(self, blob: Blob, data: IO[bytes]) -> None:
        """Upload a blob, from its first byte: what a registry has of an upload that was cut off, it does not tell."""
        start = self._wire.once("POST", self.place.url("blobs/uploads/"), self._wire.location, {})
        url = f"{start}{'&' if urlsplit(start).query else '?'}{urlencode({'digest': blob.digest})}"
        self._wire.once("PUT", url, lambda _answer: None, {"Content-Type": "application/octet-stream"}, data)


class RegistryBlob:
    """A blob of a registry, of which any piece can be read by itself. It is a `Ranged`.

    The end, where packs have their table, is read once and kept. A registry that has no pieces is asked once for the
    whole, which is kept until `close` in a file without a name.
    """

    def __init__(self, registry: Registry, blob: Blob) -> None:
        self.name = f"{registry.place}, layer {blob.digest.removeprefix('sha256:')[:12]}"
        self._registry = registry
        self._blob = blob
        self._kept = tempfile.SpooledTemporaryFile(_PIECE)  # which is no file yet
        self._is_kept = False
        self._end = b""

    def size(self) -> int:
        """Return how many bytes it has, as the manifest states."""
        return self._blob.size

    def read(self, start: int, length: int) -> bytes:
        """Return so many bytes from there."""
        if start < 0 or length < 0 or start + length > self._blob.size:
            raise CarryError(self.name, f"has no {length:,} bytes from byte {start:,} on")
        if not length:
            return b""
        end = max(self._blob.size - _END_BYTES, 0)
        if start < end:
            return self._read(start, length)
        self._end = self._end or self._read(end, self._blob.size - end)
        return self._end[start - end : start - end + length]

    def close(self) -> None:
        """Forget what is kept; the connection is the registry's."""
        self._kept.close()

    def _read(self, start: int, length: int) -> bytes:
        if not self._is_kept:
            piece = self._registry.piece(self._blob, start, length, self._kept)
            if piece is not None:
                return piece
            self._is_kept = True
        self._kept.seek(start)
        return self._kept.read(length)


def digest_of(data: bytes) -> str:
    """Return the digest of bytes as a registry writes it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"

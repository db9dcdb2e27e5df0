"""The seal of a cache: the list of all its files, beside them, and who vouches for it.

Guarantees
    A file that is read through a seal has the bytes that the list states. A root for which somebody must vouch is read
    through its seal, or not at all.
Security
    The seal alone is integrity: who can write the cache can seal it anew. A fingerprint that is expected, or a
    signature by a key that is trusted, is authenticity: then it does not matter who owns the files.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import NotVouchedFor, RecordError
from . import layout
from .contents import Contents
from .trust import Folder


@dataclass(frozen=True)
class Vouchers:
    """What a reader believes of a cache instead of its owner: fingerprints and keys. None of either: the owner counts.

    Attributes:
        fingerprints: a root must be sealed and have one of these, if there are any.
        keys: PEM files of public keys; a root must be sealed and signed by one of these, if there are any.
    """

    fingerprints: frozenset[str] = frozenset()
    keys: tuple[Path, ...] = ()

    def __bool__(self) -> bool:
        """Return whether somebody must vouch."""
        return bool(self.fingerprints or self.keys)

    def require(self, path: str, fingerprint: str, signature: Callable[[], bytes]) -> None:
        """Raise `NotVouchedFor` unless a fingerprint is as it must be; `signature` returns what is beside the seal."""
        if self.fingerprints and fingerprint not in self.fingerprints:
            expected = " or ".join(one[:12] for one in sorted(self.fingerprints))
            raise NotVouchedFor(path, f"its fingerprint is {fingerprint[:12]}, and {expected} is expected")
        if self.keys:
            from .signature import is_signed_by

            if not is_signed_by(signature(), fingerprint, self.keys):
                names = ", ".join(f"`{key}`" for key in self.keys)
                raise NotVouchedFor(path, f"its seal is not signed by {names}")


NOBODY = Vouchers()


@dataclass(frozen=True)
class Seal:
    """The list in a sealed root."""

    contents: Contents

    def read(self, read: Callable[[str, int], bytes], relative: str) -> bytes:
        """Return the bytes of a file that is listed, by what reads at most so many of a path.

        Raises `FileNotFoundError` for one that is not, `RecordError` for one that is not as it is listed.
        """
        entry = self.contents.entries.get(relative)
        if entry is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), relative)
        try:
            data = read(relative, entry.size)
        except FileNotFoundError:
            raise RecordError(relative, "is missing, though the seal lists it") from None
        if len(data) != entry.size or hashlib.sha256(data).hexdigest() != entry.digest:
            raise RecordError(relative, "is damaged: its bytes are not those that the seal lists")
        return data


def read_seal(root: Folder, vouchers: Vouchers) -> Seal | None:
    """Return the seal of a root, None if it has none.

    Raises `NotVouchedFor` if nobody vouches for it who must, `RecordError` for a seal that is damaged.
    """
    try:
        data = root.read(layout.SEAL, layout.MOST_SEAL_BYTES)
    except FileNotFoundError:
        if vouchers:
            raise NotVouchedFor(root.root, "it is not sealed, so nobody vouches for it") from None
        return None
    vouchers.require(root.root, hashlib.sha256(data).hexdigest(), lambda: read_signature(root))
    try:
        return Seal(Contents.parse(layout.SEAL, data))
    except RecordError as error:
        raise RecordError(error.path, error.reason, _HOW_TO_MEND) from None


_HOW_TO_MEND = "pull or unpack it again into a new folder; or delete `seal`, and `verify` and `seal` again"


def read_signature(root: Folder) -> bytes:
    """Return the signature beside a seal; nothing if there is none."""
    try:
        return root.read(layout.SIGNATURE, layout.MOST_SIGNATURE_BYTES)
    except FileNotFoundError:
        return b""

"""Signatures over a cache's seal: DSSE envelopes by securesystemslib, over an in-toto statement that names the seal.

A key is a PEM file, as `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout` write them. Nothing is asked of
any server. The library is imported when a key is used.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import MachineError, UsageError

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://in-toto.io/attestation/release/v0.1"
_SUBJECT = "seal"
_INSTALL = "`pip install 'fa4-precompile[sign]'`"
_MAKE = "`openssl genpkey -algorithm ed25519 -out KEY` makes one, `openssl pkey -in KEY -pubout` its public part"
_MOST_BYTES = 1 << 20


def sign(fingerprint: str, key: Path, password: Callable[[], str], envelope: bytes = b"") -> bytes:
    """Return an envelope with a signature over a fingerprint, beside those of another one over the same.

    `password` is asked if the key is encrypted. Raises `UsageError` for a key that can't be used, `MachineError` if the
    library is not there.
    """
    _require_library()
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import CryptoSigner

    signed: Any = _envelope(envelope) if envelope else None
    if signed is None or _fingerprint_in(signed) != fingerprint:
        signed = Envelope(_statement(fingerprint), PAYLOAD_TYPE, {})
    try:
        signed.sign(CryptoSigner(_private_key(key, password)))
    except (ValueError, TypeError) as error:
        raise UsageError(f"`{key}` can't sign: {error}", _MAKE) from None
    return (json.dumps(signed.to_dict(), indent=1, sort_keys=True) + "\n").encode()


def is_signed_by(envelope: bytes, fingerprint: str, keys: Sequence[Path]) -> bool:
    """Return whether one of some public keys has signed a fingerprint in an envelope.

    Raises `UsageError` for a key that can't be used, `MachineError` without the library; never for the envelope.
    """
    _require_library()
    from securesystemslib.exceptions import Error
    from securesystemslib.signer import SSlibKey

    public = []
    for key in keys:
        try:
            public.append(SSlibKey.from_crypto(_public_key(key)))
        except ValueError as error:
            raise UsageError(f"`{key}` can't be trusted: {error}", _MAKE) from None
    signed = _envelope(envelope)
    if signed is None or signed.payload_type != PAYLOAD_TYPE or _fingerprint_in(signed) != fingerprint:
        return False
    try:
        signed.verify(public, 1)
    except Error:
        return False
    return True


def _statement(fingerprint: str) -> bytes:
    subject = {"name": _SUBJECT, "digest": {"sha256": fingerprint}}
    statement = {"_type": STATEMENT, "subject": [subject], "predicateType": PREDICATE, "predicate": {}}
    return json.dumps(statement, sort_keys=True).encode()


def _fingerprint_in(envelope: Any) -> str:
    """Return what the statement in an envelope names; nothing if it is no such statement."""
    try:
        statement = json.loads(envelope.payload)
        (subject,) = statement["subject"]
        is_ours = statement["_type"] == STATEMENT and subject["name"] == _SUBJECT
        return str(subject["digest"]["sha256"]) if is_ours else ""
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""


def _envelope(data: bytes) -> Any:
    """Return the envelope that bytes are, None if they are none: whoever wrote them may mean no good."""
    from securesystemslib.dsse import Envelope

    try:
        return Envelope.from_dict(json.loads(data))
    except Exception:  # the library raises whatever comes of what it is given
        return None


def _private_key(path: Path, password: Callable[[], str]) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = _read(path)
    try:
        return load_pem_private_key(data, None)
    except TypeError:  # it is encrypted
        return load_pem_private_key(data, password().encode())


def _public_key(path: Path) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    data = _read(path)
    if b"PRIVATE KEY" in data:
        raise UsageError(f"`{path}` is a private key, which nobody else may have", f"name its public part: {_MAKE}")
    return load_pem_public_key(data)


def _read(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_MOST_BYTES)
    except OSError as error:
        raise UsageError(f"the key `{path}` can't be read: {error.strerror}", _MAKE) from None


def _require_library() -> None:
    try:
        from cryptography.hazmat.primitives import serialization  # noqa: F401
        from securesystemslib import dsse  # noqa: F401
    except ImportError as error:
        raise MachineError(f"keys need securesystemslib and cryptography ({error})", _INSTALL) from None

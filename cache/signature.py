"""Signatures over a cache's seal: DSSE envelopes by securesystemslib, over an in-toto statement that names the seal.

A key is a PEM file, as `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout` write them. Nothing is asked of
any server. The library is imported when a key is used.
"""

from __future__ import annotations

import base64
import importlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import MachineError, UsageError

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://in-toto.io/attestation/release/v0.1"
_SUBJECT = "seal"
_INSTALL = "`pip install 'fa4-precompile[sign]'`"
_MAKE = "`openssl genpkey -algorithm ed25519 -out KEY` makes one, `openssl pkey -in KEY -pubout` its public part"
_MOST_BYTES = 1 << 20
_MOST_SIGNATURES = 100


def sign(fingerprint: str, key: Path, password: Callable[[], str], envelope: bytes = b"") -> bytes:
    """Return an envelope with a signature over a fingerprint, beside those of another one over the same.

    `password` is asked if the key is encrypted. Raises `UsageError` for a key that can't be used, `MachineError` if the
    library is not there.
    """
    _require("securesystemslib")
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import CryptoSigner

    signed: Any = _envelope(envelope) if envelope else None
    # Nobody's words but our own are signed: what lies beside a seal may have come from anywhere.
    if signed is None or (signed.payload_type, signed.payload) != (PAYLOAD_TYPE, _statement(fingerprint)):
        signed = Envelope(_statement(fingerprint), PAYLOAD_TYPE, {})
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        signed.sign(CryptoSigner(_private_key(key, password)))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UsageError(f"`{key}` can't sign: {error}", _MAKE) from None
    return (json.dumps(signed.to_dict(), indent=1, sort_keys=True) + "\n").encode()


def is_signed_by(envelope: bytes, fingerprint: str, keys: Sequence[Path]) -> bool:
    """Return whether one of some public keys has signed a fingerprint in an envelope.

    Each signature is tried with each key: what an envelope says of who signed it is a hint, which nobody vouches for.
    Raises `UsageError` for a key that can't be used, `MachineError` without the library; never for the envelope.
    """
    _require("cryptography")
    public = [_public_key(key) for key in keys]
    signed = _opened(envelope)
    if signed is None or signed.payload_type != PAYLOAD_TYPE or _fingerprint_in(signed.payload) != fingerprint:
        return False
    return any(_has_signed(key, signature, signed.message) for key in public for signature in signed.signatures)


class _Opened(NamedTuple):
    """What an envelope has in it."""

    payload_type: str
    payload: bytes
    signatures: list[bytes]

    @property
    def message(self) -> bytes:
        """What is signed: DSSE's pre-authentication encoding."""
        kind = self.payload_type.encode()
        return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(self.payload), self.payload)


def _opened(data: bytes) -> _Opened | None:
    """Return what is in an envelope, None if it is none: whoever wrote it may mean no good.

    Read here, not by securesystemslib: importing that takes a job half a second where it finds the clouds' packages.
    """
    try:
        content = json.loads(data)
        signatures = [_decoded(one["sig"]) for one in content["signatures"]][:_MOST_SIGNATURES]
        return _Opened(str(content["payloadType"]), _decoded(content["payload"]), signatures)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _decoded(text: str) -> bytes:
    """Return the bytes of standard or URL-safe Base64, either of which DSSE allows. Raises `ValueError`."""
    if not isinstance(text, str):
        raise ValueError(text)
    return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)


def _has_signed(key: Any, signature: bytes, message: bytes) -> bool:
    """Return whether a signature is a key's, by the schemes that securesystemslib signs with."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

    try:
        match key:
            case ed25519.Ed25519PublicKey():
                key.verify(signature, message)
            case ec.EllipticCurvePublicKey():
                by_bits = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}
                key.verify(signature, message, ec.ECDSA(by_bits[key.curve.key_size]))
            case rsa.RSAPublicKey():
                digest = hashes.SHA256()
                key.verify(signature, message, padding.PSS(padding.MGF1(digest), padding.PSS.AUTO), digest)
            case _:
                return False
    except InvalidSignature:
        return False
    return True


def _statement(fingerprint: str) -> bytes:
    subject = {"name": _SUBJECT, "digest": {"sha256": fingerprint}}
    statement = {"_type": STATEMENT, "subject": [subject], "predicateType": PREDICATE, "predicate": {}}
    return json.dumps(statement, sort_keys=True).encode()


def _fingerprint_in(payload: bytes) -> str:
    """Return what a statement names; nothing if it is no such statement."""
    try:
        statement = json.loads(payload)
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
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    data = _read(path)
    if b"PRIVATE KEY" in data:
        raise UsageError(f"`{path}` is a private key, which nobody else may have", f"name its public part: {_MAKE}")
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"`{path}` can't be trusted: {str(error).splitlines()[0]}", _MAKE) from None
    curve = key.curve.key_size if isinstance(key, ec.EllipticCurvePublicKey) else 0
    if curve not in (0, 256, 384, 521) or not isinstance(
        key, (ed25519.Ed25519PublicKey, ec.EllipticCurvePublicKey, rsa.RSAPublicKey)
    ):
        raise UsageError(f"`{path}` can't be trusted: it is no Ed25519, ECDSA or RSA key", _MAKE)
    return key


def _read(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_MOST_BYTES)
    except OSError as error:
        raise UsageError(f"the key `{path}` can't be read: {error.strerror}", _MAKE) from None


def _require(library: str) -> None:
    try:
        importlib.import_module(library)
        importlib.import_module("cryptography")
    except ImportError as error:
        raise MachineError(f"keys need `{library}`, which is not installed here ({error})", _INSTALL) from None

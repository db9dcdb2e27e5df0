"""A tree on a web server with TLS: it may not lead to where there is none."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import pytest

from carried import make_tree, require_whole
from command_line import Cli, require_error
from web_server import on, redirecting, serving

pytest.importorskip("aiohttp", reason="the extra `ship` is not installed")
pytest.importorskip("cryptography", reason="the extra `dev` is not installed")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for `localhost` with its key, which nobody else has signed."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = tmp_path / "certificate.pem"
    path.write_bytes(pem + signed.public_bytes(serialization.Encoding.PEM))
    return path


def test_tls_is_not_left_by_a_redirect(cli: Cli, tmp_path: Path, certificate: Path) -> None:
    contents = make_tree(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    pull = ("pull", "--cache", tmp_path / "cache", "--json")
    with serving(tmp_path / "tree") as plain, serving(tmp_path / "tree", tls=context) as told:
        told.fault = on("/seal", redirecting(f"{plain.url}/seal"), times=1)
        done = cli(*pull, told.url, SSL_CERT_FILE=str(certificate))
        assert "redirects from `https` to `http`" in require_error(done, 4)
        assert not (tmp_path / "cache").exists()
        assert cli(*pull, told.url, SSL_CERT_FILE=str(certificate)).code == 0
        asked = len(told.requests)
        said = require_error(cli(*pull, told.url), 3)
        assert "certificate is not trusted" in said
        assert "tries" not in said
        assert len(told.requests) == asked
    require_whole(tmp_path / "cache", contents)

"""HTTP with a registry: who one is there, what is tried again, where a redirect may lead."""

from __future__ import annotations

import base64
import io
import json
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fa4_precompile.carry.oci_url import Place
from fa4_precompile.carry.registry import MANIFEST, Blob, Registry, RegistryBlob, digest_of
from fa4_precompile.errors import CarryError, MachineError, RefusedError, UsageError
from registries import Registry as Served
from registries import endless

pytest.importorskip("oras", reason="the extra `ship` is not installed")

_DATA = bytes(range(256)) * 400


@pytest.fixture
def served() -> Iterator[Served]:
    with Served() as server:
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited, which takes no time here."""
    found: list[float] = []
    monkeypatch.setattr("fa4_precompile.carry.patience.time.sleep", found.append)
    return found


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user who has never logged in anywhere."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    return tmp_path


def _registry(served: Served, name: str = "kernels") -> Registry:
    return Registry(Place.parse(f"oci://{served.registry}/{name}:tag"))


def _put(served: Served, data: bytes = _DATA) -> Blob:
    return Blob(served.put(data), len(data))


def _log_in(folder: Path, **hosts: str) -> None:
    folder.mkdir(exist_ok=True)
    auths = {host: {"auth": base64.b64encode(name.encode()).decode()} for host, name in hosts.items()}
    (folder / "config.json").write_text(json.dumps({"auths": auths}))


def _asks(served: Served, challenge: str, wanted: str) -> None:
    """Let a registry answer only who has an authorization."""

    def twist(handler: Any) -> bool:
        if handler.headers.get("Authorization") == wanted:
            return False
        handler.body()
        handler.answer(401, WWW_Authenticate=challenge)
        return True

    served.twist = twist


def _seen(served: Served) -> list[str]:
    return [headers.get("Authorization", "") for _, _, headers in served.requests]


# Places


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("oci://reg.example/a/b:t1", "https://reg.example/v2/a/b/manifests/t1"),
        ("oci://reg.example:5000/a:t", "https://reg.example:5000/v2/a/manifests/t"),
        ("oci+http://reg.example:5000/a:t", "http://reg.example:5000/v2/a/manifests/t"),
        ("oci://localhost:5000/a:t", "http://localhost:5000/v2/a/manifests/t"),
        ("oci://[::1]:5000/a:t", "http://[::1]:5000/v2/a/manifests/t"),
        (f"oci://r.example/a@sha256:{'0' * 64}", f"https://r.example/v2/a/manifests/sha256:{'0' * 64}"),
        (f"oci://r.example/a:t@sha256:{'0' * 64}", f"https://r.example/v2/a/manifests/sha256:{'0' * 64}"),
        ("oci://docker.io/me/a:t", "https://registry-1.docker.io/v2/me/a/manifests/t"),
    ],
)
def test_place_url_leads_to_the_registry(url: str, asked: str) -> None:
    place = Place.parse(url)
    assert place.url(f"manifests/{place.reference}") == asked
    printed = Place.parse(str(place))  # what `push` prints is pulled from the same place
    assert printed.url(f"manifests/{printed.reference}") == asked


@pytest.mark.parametrize(
    "url",
    [
        "oci://reg.example/a",
        "oci://reg.example/A:t",
        "oci://reg.example/a/../b:t",
        "oci://reg.example:t",
        "oci://user:secret@reg.example/a:t",
        "oci://reg.example/a:t?x=1",
        "oci://reg.example/a:t#x",
        "oci://reg.example/a@sha256:12",
        "oci://reg.example/a:t\n",
        "oci:///a:t",
        "https://reg.example/a:t",
        "oci://reg.example/" + "a/" * 2000 + "a:t",
    ],
)
def test_place_what_is_no_url_of_an_artifact_is_a_usage_error(url: str) -> None:
    with pytest.raises(UsageError):
        Place.parse(url)


# What is read


def test_blob_a_piece_is_read_by_itself_and_the_end_once(served: Served) -> None:
    blob = RegistryBlob(_registry(served), _put(served))
    assert [blob.read(300, 5), blob.read(0, 0)] == [_DATA[300:305], b""]
    assert served.sent == 5
    assert [blob.read(len(_DATA) - back, 3) for back in (3, 1 << 16)] == [_DATA[-3:], _DATA[-65536:-65533]]
    assert served.sent == 5 + (1 << 16)


def test_blob_a_small_one_is_read_at_once(served: Served) -> None:
    blob = RegistryBlob(_registry(served), _put(served, _DATA[:5000]))
    assert [blob.read(0, 5), blob.read(4000, 1000), blob.read(5000, 0)] == [_DATA[:5], _DATA[4000:5000], b""]
    assert served.sent == 5000


def test_blob_a_registry_without_pieces_is_asked_once_for_the_whole(served: Served) -> None:
    served.has_pieces = False
    with closing(RegistryBlob(_registry(served), _put(served))) as blob:
        assert [blob.read(300, 5), blob.read(7, 9)] == [_DATA[300:305], _DATA[7:16]]
    assert served.sent == len(_DATA)


@pytest.mark.parametrize("data", [_DATA[:-1] + b"x", _DATA + b"x"])
def test_blob_that_is_kept_whole_has_its_digest(served: Served, data: bytes) -> None:
    served.has_pieces = False
    blob = _put(served)
    served.blobs[blob.digest] = data
    with pytest.raises(RefusedError, match="other bytes"):
        RegistryBlob(_registry(served), blob).read(300, 5)


def test_blob_beyond_its_end_is_an_error(served: Served) -> None:
    blob = RegistryBlob(_registry(served), _put(served))
    with pytest.raises(CarryError, match="has no"):
        blob.read(len(_DATA) - 3, 4)


# What is tried again


def _fails(served: Served, *answers: int, **headers: str) -> None:
    """Let a registry answer so, one time after the other, before it answers as it should; -1 is to hang up."""
    left = list(answers)

    def twist(handler: Any) -> bool:
        if not left:
            return False
        handler.body()
        status = left.pop(0)
        if status < 0:
            handler.close_connection = True
        else:
            handler.answer(status, b"<html>", **headers)
        return True

    served.twist = twist


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, -1])
def test_wire_what_passes_is_tried_again(served: Served, status: int) -> None:
    _fails(served, status, status, status, status)
    blob = _put(served)
    assert _registry(served).whole(blob) == _DATA


@pytest.mark.parametrize("status", [503, -1])
def test_wire_what_does_not_pass_is_told(served: Served, status: int, pauses: list[float]) -> None:
    _fails(served, *[status] * 9)
    with pytest.raises(CarryError, match="gives up after 5 tries"):
        _registry(served).has(_put(served))
    assert len(served.requests) == 5
    assert all(least <= pause <= 1.5 * least for least, pause in zip([0.5, 1.0, 2.0, 4.0], pauses, strict=True))


def test_wire_a_registry_is_left_alone_for_as_long_as_it_asks_within_reason(
    served: Served, pauses: list[float]
) -> None:
    _fails(served, 429, Retry_After="7")
    assert _registry(served).has(_put(served))
    _fails(served, 429, Retry_After="86400")
    assert _registry(served).has(_put(served))
    assert [7 <= pauses[0] <= 10.5, 30 <= pauses[1] <= 45] == [True, True]


def test_wire_an_answer_that_is_cut_off_is_asked_for_again(served: Served) -> None:
    left = [0, 5, 100, 4000]

    def twist(handler: Any) -> bool:
        if not left:
            return False
        handler.answer(200, _DATA[: left.pop(0)], Content_Length=str(len(_DATA)))
        handler.close_connection = True
        return True

    served.twist = twist
    assert _registry(served).whole(_put(served)) == _DATA


def test_wire_an_upload_that_is_cut_off_begins_anew(served: Served) -> None:
    left = ["PUT", "PUT", "PUT"]

    def twist(handler: Any) -> bool:
        if handler.command not in left:
            return False
        left.pop()
        handler.rfile.read(1000)
        handler.close_connection = True
        return True

    served.twist = twist
    data = _DATA * 50
    blob = Blob(digest_of(data), len(data))
    assert _registry(served).upload(blob, io.BytesIO(data))
    assert served.blobs == {blob.digest: data}
    assert [method for method, _, _ in served.requests] == ["HEAD", *["POST", "PUT"] * 4]


@pytest.mark.parametrize("at", [0, 4, 12, 17, 20, 30, 31, 32, 33, 36, 60, 100, 110, 150, 190])
def test_wire_an_answer_that_is_cut_off_in_its_head_is_asked_for_again(served: Served, at: int) -> None:
    served.manifests["tag"] = MANIFEST, b"{}"
    digest = "sha256:" + "0" * 64
    head = f"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: {MANIFEST}\r\nDocker-Content-Digest: {digest}"
    left = ["once"]

    def twist(handler: Any) -> bool:
        if not left:
            return False
        left.pop()
        handler.wfile.write(head[:at].encode())
        handler.close_connection = True
        return True

    served.twist = twist
    assert _registry(served).manifest() == b"{}"


def test_wire_a_tag_is_set_again_until_it_is(served: Served) -> None:
    _fails(served, 503, -1)
    _registry(served).tag(b"{}")
    assert served.manifests["tag"] == (MANIFEST, b"{}")


def test_wire_nobody_at_the_port_is_told(served: Served) -> None:
    served.server_close()
    served.shutdown()
    with pytest.raises(CarryError, match="gives up"):
        _registry(served).has(Blob("sha256:" + "0" * 64, 1))


@pytest.mark.parametrize("status", [400, 405, 410, 418])
def test_wire_what_a_further_try_would_not_change_is_told_at_once(served: Served, status: int) -> None:
    _fails(served, status)
    with pytest.raises(CarryError, match=f"answers {status}"):
        _registry(served).manifest()
    assert len(served.requests) == 1


# Who one is


@pytest.mark.parametrize("variable", [False, True])
def test_wire_a_password_is_that_of_docker_login(
    served: Served, home: Path, monkeypatch: pytest.MonkeyPatch, variable: bool
) -> None:
    wanted = "Basic " + base64.b64encode(b"me:secret").decode()
    _asks(served, 'Basic realm="a-realm"', wanted)
    _log_in(home / ".docker", **{served.registry: "me:wrong" if variable else "me:secret"})
    if variable:
        _log_in(home / "other", **{f"https://{served.registry}/v1/": "me:secret"})
        monkeypatch.setenv("DOCKER_CONFIG", str(home / "other"))
    registry, blob = _registry(served), _put(served)
    assert registry.whole(blob) == _DATA
    assert registry.has(blob)
    assert _seen(served) == ["", wanted, wanted], "it is asked once, and sent to nobody who has not asked"


def test_wire_a_helper_is_asked_for_the_password(served: Served, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _asks(served, 'Basic realm="a-realm"', "Basic " + base64.b64encode(b"me:secret").decode())
    (home / ".docker").mkdir()
    (home / ".docker/config.json").write_text('{"credsStore": "ours"}')
    helper = home / "docker-credential-ours"
    helper.write_text('#!/bin/sh\nread -r host\necho \'{"Username": "me", "Secret": "secret"}\'\n')
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(home), prepend=":")
    assert _registry(served).has(_put(served))


def _gives_tokens(served: Served, wanted: str = "") -> str:
    """Let a registry want a token, and give it to whom has a password. Return the challenge."""
    challenge = f'Bearer realm="http://{served.registry}/token",service="it",scope="repository:kernels:pull"'
    _asks(served, challenge, "Bearer a-token")
    inner = served.twist

    def twist(handler: Any) -> bool:
        if not handler.path.startswith("/token"):
            return inner(handler)
        if handler.headers.get("Authorization", "") == wanted:
            handler.answer(200, b'{"token": "a-token"}')
        else:
            handler.answer(401)
        return True

    served.twist = twist
    return challenge


def test_wire_a_token_is_got_without_a_password(served: Served) -> None:
    _gives_tokens(served)
    assert _registry(served).whole(_put(served)) == _DATA
    assert "service=it&scope=repository%3Akernels%3Apull" in served.requests[1][1]


def test_wire_a_token_is_got_by_the_password(served: Served, home: Path) -> None:
    wanted = "Basic " + base64.b64encode(b"me:secret").decode()
    _gives_tokens(served, wanted)
    _log_in(home / ".docker", **{served.registry: "me:secret"})
    assert _registry(served).whole(_put(served)) == _DATA
    assert _seen(served) == ["", wanted, "Bearer a-token"]


def test_wire_a_token_that_has_become_old_is_got_again(served: Served, home: Path) -> None:
    _gives_tokens(served)
    registry, blob = _registry(served), _put(served)
    assert registry.has(blob)
    inner, left = served.twist, ["once"]

    def twist(handler: Any) -> bool:
        if left and handler.command == "PUT":
            handler.body()
            left.pop()
            handler.answer(401, WWW_Authenticate=f'Bearer realm="http://{served.registry}/token"')
            return True
        return inner(handler)

    served.twist = twist
    assert registry.upload(Blob(digest_of(b"other"), 5), io.BytesIO(b"other"))


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(
    "challenge", ["", 'Basic realm="x"', "Digest x", 'Bearer realm="http://REGISTRY/none"', "Bearer"]
)
def test_wire_who_is_not_let_in_is_told_to_log_in_at_once(
    served: Served, status: int, challenge: str, pauses: list[float]
) -> None:
    def twist(handler: Any) -> bool:
        handler.answer(status, WWW_Authenticate=challenge.replace("REGISTRY", served.registry))
        return True

    served.twist = twist
    with pytest.raises(CarryError) as caught:
        _registry(served).manifest()
    assert "docker login" in caught.value.hint or "Digest" in challenge
    assert pauses == []


def test_wire_a_wrong_password_is_told_at_once(served: Served, home: Path, pauses: list[float]) -> None:
    _asks(served, 'Basic realm="a-realm"', "Basic of somebody else")
    _log_in(home / ".docker", **{served.registry: "me:secret"})
    with pytest.raises(CarryError, match="401") as caught:
        _registry(served).manifest()
    assert f"docker login {served.registry}" in caught.value.hint
    assert pauses == []
    assert len(served.requests) == 2


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": []}', '{"auths": {"HOST": 3}}', '{"credHelpers": 3}'])
def test_wire_settings_of_docker_that_are_none_are_told(served: Served, home: Path, text: str) -> None:
    _asks(served, 'Basic realm="a-realm"', "Basic nobody")
    (home / ".docker").mkdir()
    (home / ".docker/config.json").write_text(text.replace("HOST", served.registry))
    with pytest.raises(
        (MachineError, CarryError), match=r"`config.json` of Docker .* can't be read|can't authenticate: "
    ):
        _registry(served).manifest()


def test_wire_netrc_does_not_take_the_place_of_a_login(served: Served, home: Path) -> None:
    (home / ".netrc").write_text("machine 127.0.0.1 login other password other\n")
    assert _registry(served).has(_put(served))
    assert _seen(served) == [""]


# Where a redirect leads


def _sends_to(served: Served, url: str) -> None:
    def twist(handler: Any) -> bool:
        if "/blobs/" not in handler.path or handler.headers.get("Authorization") != "Bearer a-token":
            return False
        handler.answer(307, Location=url)
        return True

    inner = served.twist
    served.twist = lambda handler: twist(handler) or inner(handler)


def test_wire_credentials_do_not_follow_a_redirect_to_another_host(served: Served) -> None:
    _gives_tokens(served)
    with Served() as store:
        blob = _put(store)
        _sends_to(served, f"http://{store.registry}/store/blobs/{blob.digest}?signature=x")
        assert RegistryBlob(_registry(served), blob).read(300, 5) == _DATA[300:305]
        assert [(headers.get("Authorization"), headers["Range"]) for _, _, headers in store.requests] == [
            (None, "bytes=300-304")
        ]
        store.shutdown()


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x/", "data:text/plain,x", "//[/"])
def test_wire_a_redirect_to_no_web_page_is_refused(served: Served, url: str) -> None:
    _gives_tokens(served)
    _sends_to(served, url)
    with pytest.raises(RefusedError, match=r"leads to .*, which is not `https`"):
        _registry(served).whole(_put(served))


def test_wire_a_redirect_in_a_circle_ends(served: Served) -> None:
    _gives_tokens(served)
    blob = _put(served)
    _sends_to(served, f"/v2/kernels/blobs/{blob.digest}")
    with pytest.raises(CarryError, match="without an end"):
        _registry(served).whole(blob)


def test_wire_a_redirect_with_an_endless_body_is_not_read_to_its_end(served: Served) -> None:
    def twist(handler: Any) -> bool:
        handler.send_response(307)
        handler.send_header("Location", "file:///etc/passwd")
        handler.send_header("Content-Length", str(1 << 40))
        handler.end_headers()
        endless(handler)
        return True

    served.twist = twist
    with pytest.raises(RefusedError, match="https"):
        _registry(served).manifest()


def test_wire_an_endless_token_is_not_read_to_its_end(served: Served) -> None:
    _gives_tokens(served)
    inner = served.twist

    def twist(handler: Any) -> bool:
        if not handler.path.startswith("/token"):
            return inner(handler)
        handler.send_response(200)
        handler.send_header("Content-Length", str(1 << 40))
        handler.end_headers()
        endless(handler)
        return True

    served.twist = twist
    with pytest.raises(CarryError, match="authenticate"):
        _registry(served).manifest()


# TLS


@pytest.fixture
def safe(served: Served, tmp_path: Path) -> Path:
    """The same registry with TLS, by a certificate of its own; yields the certificate."""
    certificate = tmp_path / "certificate.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    made = subprocess.run([*command.split(), "-keyout", tmp_path / "key.pem", "-out", certificate], capture_output=True)
    if made.returncode:
        pytest.skip("needs `openssl`")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, tmp_path / "key.pem")
    served.socket = context.wrap_socket(served.socket, server_side=True)
    return certificate


def _with_tls(served: Served) -> Registry:
    port = served.registry.partition(":")[2]
    return Registry(Place(f"localhost:{port}", "kernels", "tag", "", plain=False))


def test_wire_a_certificate_that_is_not_trusted_is_told_at_once(
    served: Served, safe: Path, pauses: list[float]
) -> None:
    with pytest.raises(CarryError, match="certificate is not accepted"):
        _with_tls(served).manifest()
    assert pauses == []


def test_wire_what_is_asked_with_tls_does_not_lead_out_of_it(
    served: Served, safe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(safe))
    blob = _put(served)
    assert _with_tls(served).whole(blob) == _DATA

    def leads(handler: Any) -> bool:
        handler.answer(307, Location="http://127.0.0.1:1/x")
        return True

    served.twist = leads
    with pytest.raises(RefusedError, match="not `https`"):
        _with_tls(served).whole(blob)
    _asks(served, 'Bearer realm="http://127.0.0.1:1/token"', "Bearer none")
    with pytest.raises(RefusedError, match="not `https`"):
        _with_tls(served).whole(blob)


def test_wire_without_the_packages_is_told_what_to_install(served: Served) -> None:
    program = f"""
import sys
sys.modules["oras"] = None
from fa4_precompile.carry.oci_url import Place
from fa4_precompile.carry.registry import Registry
from fa4_precompile.errors import MachineError
try:
    Registry(Place.parse("oci://{served.registry}/a:t"))
except MachineError as error:
    print(error.hint)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "fa4-precompile[ship]" in done.stdout, done.stderr

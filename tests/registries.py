"""Registries for tests: Docker's, if it is there; one in this process, which can misbehave; and a line to either."""

from __future__ import annotations

import hashlib
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

_CONFIG = """version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {storage}}}}}
http: {{addr: 127.0.0.1:{port}}}
"""
_HTPASSWD = "auth: {{htpasswd: {{realm: a-realm, path: {path}}}}}\n"
_RANGE = re.compile(r"bytes=([0-9]+)-([0-9]+)")


@contextmanager
def docker_registry(folder: Path, htpasswd: str = "") -> Iterator[str]:
    """Run Docker's registry, if it is on the path, and yield its host and port."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("`docker-registry` is not on the path (Debian: `apt-get install docker-registry`)")
    folder.mkdir(exist_ok=True)
    port = _free_port()
    config = _CONFIG.format(storage=folder / "storage", port=port)
    if htpasswd:
        (folder / "htpasswd").write_text(htpasswd)
        config += _HTPASSWD.format(path=folder / "htpasswd")
    (folder / "config.yml").write_text(config)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    try:
        _wait_for(f"http://127.0.0.1:{port}/v2/", process)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return int(server.getsockname()[1])


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        try:
            urllib.request.urlopen(url).close()
            return
        except urllib.error.HTTPError:  # it answers
            return
        except OSError:
            assert process.poll() is None, "the registry has ended"
            time.sleep(0.1)
    raise TimeoutError(url)


class Line:
    """A line to a registry that counts bytes, and can be cut."""

    def __init__(self, registry: str) -> None:
        host, _, port = registry.partition(":")
        self._to = host, int(port)
        self._server = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self.registry = f"127.0.0.1:{self._server.getsockname()[1]}"
        self.up = self.down = 0
        self.left: int | None = None
        """How many bytes may still pass before all connections are cut, and every new one; None if all."""
        self.left_then_whole: int | None = None
        """How many bytes may still pass before a connection is cut, once."""
        self.cuts = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._server.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                if self.left is not None and self.left <= 0:
                    client.close()
                    continue
                server = socket.create_connection(self._to)
                threading.Thread(target=self._pump, args=(client, server, "up"), daemon=True).start()
                threading.Thread(target=self._pump, args=(server, client, "down"), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, way: str) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                data, goes_on = self._allowed(data, way)
                sink.sendall(data)
                if not goes_on:
                    break
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):
            source.close()

    def _allowed(self, data: bytes, way: str) -> tuple[bytes, bool]:
        """Return what of some bytes may pass, and whether the connection stays."""
        with self._lock:
            left = self.left if self.left_then_whole is None else self.left_then_whole
            if left is not None:
                data = data[: max(left, 0)]
                left -= len(data)
            if self.left_then_whole is None:
                self.left = left if self.left is not None else None  # who has mended it meanwhile is right
            else:
                self.left_then_whole = left if left else None
                self.cuts += not left
            setattr(self, way, getattr(self, way) + len(data))
        return data, left is None or left > 0


class Registry(ThreadingHTTPServer):
    """A registry in memory that does what the OCI distribution specification says, unless a test changes that.

    `twist` is asked first: if it returns true, it has answered.
    """

    daemon_threads = True

    def __init__(self, has_pieces: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.registry = f"127.0.0.1:{self.server_address[1]}"
        self.has_pieces = has_pieces
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.sent = self.got = 0
        self.twist: Callable[[_Handler], bool] = lambda handler: False
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def put(self, data: bytes) -> str:
        """Keep a blob, and return its digest."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        return digest

    def handle_error(self, *_arguments: Any) -> None:
        """Say nothing of clients that go away."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Registry

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send an answer."""
        self.send_response(status)
        headers = {"Content_Length": str(len(body))} | headers
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.server.sent += len(body)  # first: who has the body asks for the number
            self.wfile.write(body)

    def body(self) -> bytes:
        """Return what was sent, if all of it has come: the line may have been cut, also in the head."""
        stated = int(self.headers.get("Content-Length", -1 if self.command == "PUT" else 0))
        data = self.rfile.read(max(stated, 0))
        if len(data) != stated:
            raise ConnectionAbortedError("the request ends too early")
        self.server.got += len(data)
        return data

    def _any(self) -> None:
        self.server.requests.append((self.command, self.path, dict(self.headers)))
        if not self.server.twist(self):
            getattr(self, f"_{self.command.lower()}")()

    do_GET = do_HEAD = do_POST = do_PUT = _any  # noqa: N815

    def _head(self) -> None:
        self._get()

    def _get(self) -> None:
        kind, name = urlsplit(self.path).path.split("/")[-2:]
        if kind == "manifests" and name in self.server.manifests:
            media_type, data = self.server.manifests[name]
            self.answer(200, data, Content_Type=media_type)
        elif kind == "blobs" and name in self.server.blobs:
            self._blob(self.server.blobs[name])
        else:
            self.answer(404, b'{"errors": [{"code": "UNKNOWN", "message": "unknown to the registry"}]}')

    def _blob(self, data: bytes) -> None:
        piece = _RANGE.fullmatch(self.headers.get("Range", ""))
        if piece is None or not self.server.has_pieces:
            self.answer(200, data)
            return
        first, last = int(piece[1]), int(piece[2])
        self.answer(206, data[first : last + 1], Content_Range=f"bytes {first}-{last}/{len(data)}")

    def _post(self) -> None:
        self.body()
        self.answer(202, Location=f"{self.path}an-upload?_state=some")

    def _put(self) -> None:
        data = self.body()
        parts = urlsplit(self.path)
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if "/manifests/" in parts.path:
            for name in (parts.path.rpartition("/")[2], digest):
                self.server.manifests[name] = self.headers["Content-Type"], data
            self.answer(201, Docker_Content_Digest=digest)
        elif parse_qs(parts.query)["digest"] == [digest]:
            self.server.blobs[digest] = data
            self.answer(201)
        else:
            self.answer(400, b'{"errors": [{"code": "DIGEST_INVALID", "message": "not its digest"}]}')


def endless(handler: _Handler) -> None:
    """Send a body without an end, until the client has had enough of it."""
    with suppress(OSError):
        while True:
            handler.wfile.write(b" " * (1 << 16))

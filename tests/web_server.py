"""A web server that has a folder, knows `Range`, counts what it sends, and does wrong as it is told. Real sockets."""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        told = self.server.told
        with told.lock:
            told.requests.append(self.path)
            number = len(told.requests)
        if told.fault is not None and told.fault(self, number):
            return
        self.send_file()

    def wanted(self) -> bytes | None:
        path = self.server.told.folder / self.path.partition("?")[0].lstrip("/")
        return path.read_bytes() if path.is_file() else None

    def send_file(self) -> None:
        """Answer as a good server does."""
        data = self.wanted()
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        if data is None:
            self.answer(404, b"no such file")
        elif asked is None:
            self.answer(200, data)
        elif int(asked[1]) >= len(data):
            self.answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
        else:
            start, end = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
            self.answer(206, data[start : end + 1], {"Content-Range": f"bytes {start}-{end}/{len(data)}"})

    def answer(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, length: int | None = None
    ) -> None:
        """Send an answer; with another `length` than the body has, the connection is closed after it."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.send(body)
        self.close_connection = length is not None

    def send(self, body: bytes) -> None:
        with self.server.told.lock:
            self.server.told.sent += len(body)
        self.wfile.write(body)

    def endlessly(self, piece: bytes, pause_s: float = 0.0) -> None:
        """Send pieces until the other side has gone."""
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        while not self.server.told.stopped.wait(pause_s):
            try:
                self.send(piece)
                self.wfile.flush()
            except OSError:
                return

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


Fault = Callable[[Handler, int], bool]
"""Answers a request, which has a number, or returns False and leaves that to the server."""


@dataclass
class Told:
    """What a server has, does wrong, was asked for, and has sent."""

    folder: Path
    fault: Fault | None = None
    requests: list[str] = field(default_factory=list)
    sent: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    stopped: threading.Event = field(default_factory=threading.Event)
    url: str = ""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    told: Told

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients leave when they have seen enough."""


@contextmanager
def serving(folder: Path, fault: Fault | None = None, tls: ssl.SSLContext | None = None) -> Iterator[Told]:
    """Serve a folder on this machine."""
    server = _Server(("127.0.0.1", 0), Handler)
    server.told = Told(folder, fault, url=f"http://127.0.0.1:{server.server_port}")
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        server.told.url = f"https://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.told
    finally:
        server.told.stopped.set()
        server.shutdown()
        server.server_close()


def on(end: str, do: Callable[[Handler], None], times: int = 1 << 30) -> Fault:
    """Return a fault of the first requests for paths with such an end."""
    left = [times]

    def fault(handler: Handler, _number: int) -> bool:
        with handler.server.told.lock:
            is_meant = handler.path.partition("?")[0].endswith(end) and left[0] > 0
            left[0] -= is_meant
        if is_meant:
            do(handler)
        return is_meant

    return fault


def silently(handler: Handler) -> None:
    """Never answer."""
    handler.server.told.stopped.wait(60)
    handler.close_connection = True


def dripping(handler: Handler) -> None:
    """Send a byte now and then, without end."""
    handler.endlessly(b".", 0.05)


def cut(handler: Handler) -> None:
    """Send half of what was promised."""
    data = handler.wanted() or b""
    handler.answer(200, data[: len(data) // 2], length=len(data))


def busy(handler: Handler) -> None:
    """Be busy."""
    handler.answer(503, b"try again")


def hang_up(handler: Handler) -> None:
    """Close the connection instead of answering."""
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def redirecting(target: str) -> Callable[[Handler], None]:
    """Send to another place."""
    return lambda handler: handler.answer(302, b"", {"Location": target})


def saying(body: bytes) -> Callable[[Handler], None]:
    """Answer with other bytes."""
    return lambda handler: handler.answer(200, body)


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)

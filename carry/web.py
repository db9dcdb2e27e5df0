"""Files at `http://` and `https://` URLs, to read.

Security
    A server can answer anything, and for as long as it likes. So no more is read than was asked for, nothing is
    waited for without end, and a redirect may lead to `http` and `https` only, and from `https` to `https` only.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ..errors import CarryError, RefusedError
from .patience import NotNow, Patience

if TYPE_CHECKING:
    import aiohttp

_MOST_REDIRECTS = 5
_BUSY = frozenset({408, 425, 429})
_ABSENT = frozenset({404, 410})
_DENIED = frozenset({401, 403, 407})
_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18})")

_Made = TypeVar("_Made")


class Denied(CarryError):
    """The place is there, and does not let us."""


class Piece(NamedTuple):
    """Bytes of a file, and how many bytes the whole file has."""

    data: bytes
    total: int


class Web:
    """Reads URLs through one `fsspec` session, which keeps connections open.

    What the person has set for `http` in fsspec's configuration holds: headers, for example. So do `HTTPS_PROXY`
    and `.netrc`.
    """

    def __init__(self, patience: Patience) -> None:
        import aiohttp
        import fsspec
        from fsspec.asyn import sync

        of_the_person = fsspec.config.conf.get("http", {}).get("client_kwargs", {})
        files = fsspec.filesystem("http", client_kwargs={"trust_env": True, **of_the_person})
        self._files = files  # which closes the session when it goes
        self._loop = files.loop
        self._session: aiohttp.ClientSession = sync(files.loop, files.set_session)  # before threads ask for it
        self._patience = patience
        self._limits: dict[str, Any] = {
            "timeout": aiohttp.ClientTimeout(None, sock_connect=patience.connect_s, sock_read=patience.silence_s),
            "max_redirects": _MOST_REDIRECTS,
        }

    def whole(self, name: str, url: str, most: int) -> bytes | None:
        """Return a file from its start, and at most so many bytes of it; None if there is none.

        Raises `NotNow` for what may be better another time, else `CarryError` or `RefusedError`.
        """

        async def ask() -> bytes | None:
            async with self._session.get(url, **self._limits) as answer:
                return await _at_most(answer, most, self._patience) if _is_there(name, url, answer) else None

        return self._run(name, ask, most)

    def piece(self, name: str, url: str, start: int, length: int) -> Piece | None:
        """Return a piece of a file, or None if there is no such file. Raises as `whole`."""
        headers = {"Range": f"bytes={start}-{start + length - 1}"}

        async def ask() -> Piece | None:
            async with self._session.get(url, headers=headers, **self._limits) as answer:
                if not _is_there(name, url, answer):
                    return None
                total = _total_of_part(name, answer, start)
                return Piece(await _at_most(answer, length, self._patience), total)

        return self._run(name, ask, length)

    def _run(self, name: str, ask: Callable[[], Awaitable[_Made]], size: int) -> _Made:
        """Run a coroutine to its end, and put into words what went wrong."""
        import aiohttp
        from fsspec.asyn import sync
        from fsspec.exceptions import FSTimeoutError

        try:
            made: _Made = sync(self._loop, ask, timeout=self._patience.whole(size))
        except (FSTimeoutError, TimeoutError):  # aiohttp's, too
            raise NotNow("its server is silent, or too slow to be waited for") from None
        except aiohttp.NonHttpUrlRedirectClientError:
            raise RefusedError(name, "its server redirects to what is not on the web") from None
        except aiohttp.TooManyRedirects:
            raise RefusedError(name, f"its server redirects more than {_MOST_REDIRECTS} times") from None
        except aiohttp.InvalidURL:
            raise CarryError(name, "is no URL, or is redirected to what is none", "look at the URL") from None
        except aiohttp.ClientConnectorCertificateError as error:
            why = f"its server's certificate is not trusted: {error.certificate_error}"
            raise CarryError(name, why, "`SSL_CERT_FILE` names a file with certificates to trust") from None
        except (aiohttp.ClientError, OSError) as error:
            raise NotNow(f"the connection fails: {str(error) or type(error).__name__}") from None
        return made


def _is_there(name: str, url: str, answer: aiohttp.ClientResponse) -> bool:
    """Return whether an answer is a file or a part of one; False if it says that there is none."""
    if url.startswith("https:") and any(step.url.scheme != "https" for step in (*answer.history, answer)):
        raise RefusedError(name, "its server redirects from `https` to `http`, where anybody can change it")
    said = f"its server says {answer.status} {answer.reason or ''}".rstrip()
    if answer.status in (200, 206):
        return True
    if answer.status in _ABSENT:
        return False
    if answer.status in _DENIED:
        raise Denied(name, said, "look at what the URL, `.netrc` or fsspec's configuration give as credentials")
    if answer.status in _BUSY or answer.status >= 500:
        raise NotNow(said)
    raise CarryError(name, said, "look at the URL")


def _total_of_part(name: str, answer: aiohttp.ClientResponse, start: int) -> int:
    """Return how many bytes a file has of which an answer is the part from `start` on."""
    if answer.status != 206:
        raise CarryError(
            name,
            "its server knows no parts of a file, and would send all of it",
            "download the file and name that, or use a server that knows `Range`",
        )
    stated = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if stated is None or int(stated[1]) != start:
        raise RefusedError(name, f"its server sends another part than the one from byte {start} on")
    return int(stated[2])


async def _at_most(answer: aiohttp.ClientResponse, most: int, patience: Patience) -> bytes:
    """Return what an answer has, and of more than `most` bytes only so many. The rest is not waited for."""
    parts: list[bytes] = []
    left, start = most, time.monotonic()
    while left > 0 and (part := await answer.content.read(left)):
        parts.append(part)
        left -= len(part)
        if time.monotonic() - start > patience.whole(most - left):
            raise TimeoutError
    if left == 0:
        answer.close()
    return b"".join(parts)

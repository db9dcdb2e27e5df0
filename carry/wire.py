"""HTTP with a registry: who one is there, what is tried again, where a redirect may lead, how much is read.

Who one is, is the business of oras: it finds credentials, asks helpers for them, and gets tokens. What is not left to
it, and why, is told in docs/decisions/0025-oci-artifacts.md.

Security
    Credentials go to the registry and to where it sends for tokens, never to where else a redirect leads. Without TLS
    nothing is asked of a registry that is spoken to with TLS.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar
from urllib.parse import urljoin, urlsplit

from ..errors import CarryError, MachineError, RefusedError
from .oci_url import Place
from .patience import NotNow, Patience

if TYPE_CHECKING:
    from requests import Response

_Got = TypeVar("_Got")

_PATIENCE = Patience()
_TIMEOUT_S = (10, 120)  # to connect, and between two pieces
_MOST_REDIRECTS = 5
_MOST_ASIDE = 1 << 20
"""How many bytes are read of what is no content: an error, a token, the body of a redirect."""

_MOST_LETTERS = 300
_WAYS = {"basic": "basic", "bearer": "token"}.get
_DOCKER_HUB_LOGIN = "index.docker.io"


class NotThere(CarryError):
    """The registry answers, and does not have what was asked for."""


class Wire:
    """The connection to one repository of a registry. Creating the object sends nothing."""

    def __init__(self, place: Place) -> None:
        try:
            import oras.logger
            import requests
        except ImportError as error:
            raise MachineError(
                f"`{place}` is in an OCI registry, and the package `{error.name}` is not installed",
                "`pip install 'fa4-precompile[ship]'`",
            ) from None
        oras.logger.setup_logger(quiet=True)  # what is to be said is said in our errors
        self._place = place
        self._session = requests.Session()
        self._session.max_redirects = _MOST_REDIRECTS
        self._session.auth = _as_it_is
        self._session.cookies.set_policy(
            DefaultCookiePolicy(allowed_domains=[])
        )  # some registries take us for a browser
        self._session.hooks["response"].append(_bound)
        # oras sets none for its own requests, and would wait for ever.
        vars(self._session)["request"] = partial(self._session.request, timeout=_TIMEOUT_S)
        self._authorization = ""

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def again(self, step: Callable[[], _Got]) -> _Got:
        """Do something that may be done twice until nothing is lost on the way. Raises `CarryError` in the end."""
        from requests import RequestException, exceptions
        from urllib3.exceptions import HTTPError

        passing = (exceptions.ChunkedEncodingError, exceptions.ConnectionError, exceptions.Timeout, HTTPError)

        def ask() -> _Got:
            try:
                return step()
            except passing as error:
                # A certificate, or a connection that was cut off.
                if isinstance(error, exceptions.SSLError) and "certificate" in str(error).lower():
                    raise self._error(f"its certificate is not accepted: {_shown(error)}", _HOW_TO_TRUST) from None
                raise NotNow(_shown(error)) from None
            except RequestException as error:
                raise self._error(f"can't be asked: {_shown(error)}", "look at the URL") from None

        return _PATIENCE.tried(str(self._place), ask)

    def call(self, method: str, url: str, take: Callable[[Response], _Got], **headers: str) -> _Got:
        """Send a request until it is answered, and return what is taken from the answer. `url` is of the repository."""
        return self.again(lambda: self.once(method, self._place.url(url), take, headers))

    def once(
        self,
        method: str,
        url: str,
        take: Callable[[Response], _Got],
        headers: Mapping[str, str],
        body: IO[bytes] | bytes = b"",
    ) -> _Got:
        """Send a request, and return what is taken from the answer.

        Raises `CarryError` for what no further try would change, `NotThere` for what is not there.
        """
        home, asked = _origin(self._place.url("")), False
        for _ in range(_MOST_REDIRECTS + 1):
            self._require_safe(url)
            known = _origin(url) == home and self._authorization
            own = {"Authorization": self._authorization} if known else {}
            if not isinstance(body, bytes):
                body.seek(0)
            with self._sent(method, url, {**headers, **own}, body) as answer:
                challenge = answer.headers.get("WWW-Authenticate", "")
                if answer.status_code in (401, 403) and challenge and not asked and _origin(url) == home:
                    self._authorization, asked = self._authorized(answer), True
                elif answer.is_redirect and method == "GET":
                    url = self.location(answer)
                else:
                    self._require_good(answer)
                    return take(answer)
        raise self._error("leads from one place to the next without an end", "ask who runs the registry")

    def location(self, answer: Response) -> str:
        """Return the URL that an answer leads on to. Raises `RefusedError` for what is none."""
        url = answer.headers.get("Location", "")
        if not url:
            raise NotNow("the answer leads nowhere")
        try:
            url = urljoin(answer.url, url)
            _origin(url)
        except ValueError:
            raise self._leads_to(url) from None
        return url

    # How it is done

    def _sent(self, method: str, url: str, headers: Mapping[str, str], body: IO[bytes] | bytes) -> Response:
        from requests import RequestException

        try:
            return self._session.request(
                method, url, headers=dict(headers), data=body, stream=True, allow_redirects=False
            )
        except RequestException:
            raise
        except ValueError:  # of a redirect, which `requests` looks at though it is not to follow it
            raise self._leads_to("what is no URL") from None

    def _require_safe(self, url: str) -> None:
        """Raise `RefusedError` for a URL that a registry may not lead to."""
        scheme = urlsplit(url).scheme
        if scheme != "https" and not (scheme == "http" and self._place.plain):
            raise self._leads_to(url)

    def _leads_to(self, url: str) -> RefusedError:
        return RefusedError(
            str(self._place), f"leads to `{_shown(url)}`, which is not `https`", "ask who runs the registry"
        )

    def _require_good(self, answer: Response) -> None:
        """Raise what a status means that is none of success. A `HEAD` that is sent elsewhere has found something."""
        status = answer.status_code
        if status in (200, 201, 202, 206) or (answer.is_redirect and answer.request.method == "HEAD"):
            return
        reason = _reason(answer)
        if status == 429 or status >= 500:
            raise NotNow(f"the registry answers {status}{reason}", _pause(answer))
        if status in (401, 403):
            raise self._error(f"the registry answers {status}, not allowed{reason}", self._how_to_log_in())
        if status == 404:
            raise NotThere(str(self._place), f"is not there, says the registry{reason}", _HOW_TO_FIND)
        raise self._error(f"the registry answers {status}{reason}", "ask who runs the registry")

    def _authorized(self, answer: Response) -> str:
        """Return what an answer asks for, by oras; raises `CarryError` if it can't be had."""
        import oras.auth
        import oras.container
        from requests import RequestException, exceptions
        from urllib3.exceptions import HTTPError

        way = _WAYS(answer.headers["WWW-Authenticate"].partition(" ")[0].lower())
        if way is None:
            raise self._error("asks for authentication in a way that is neither Basic nor Bearer", "use another")
        backend: Any = oras.auth.get_auth_backend(way, self._session, self._place.plain)
        backend._auth_config = _docker_settings()  # oras itself would read `~/.docker/config.json`, whatever is set
        try:
            backend.load_configs(oras.container.Container(f"{self._place.host}/{self._place.name}"))
            if way == "token":
                self._require_safe(_realm(answer))
            elif not hasattr(backend, "_basic_auth"):
                raise self._error("asks for a user and a password", self._how_to_log_in())
            headers, changed = backend.authenticate_request(answer, {})
        except (CarryError, RefusedError):
            raise
        except Exception as error:  # oras takes answers and settings as they are
            passing = (RequestException, HTTPError, NotNow)
            if isinstance(error, passing) and not isinstance(error, exceptions.InvalidJSONError):
                raise
            raise self._error(f"can't authenticate: {_shown(error)}", self._how_to_log_in()) from None
        if not changed:
            raise self._error("gives no token", self._how_to_log_in())
        return str(headers["Authorization"])

    def _how_to_log_in(self) -> str:
        return f"`docker login {self._place.registry}`, or ask who runs it for the right to do this"

    def _error(self, message: str, hint: str = "try again: what has arrived is kept") -> CarryError:
        return CarryError(str(self._place), message, hint)


def read_exactly(answer: Response, length: int) -> bytes:
    """Return the next bytes of an answer's body; if there are fewer, that is a lost connection."""
    parts = []
    while length and (part := answer.raw.read(length, decode_content=False)):
        parts.append(part)
        length -= len(part)
    if length:
        raise NotNow("the answer ends too early")
    return b"".join(parts)


def read_at_most(answer: Response, most: int) -> bytes | None:
    """Return the body of an answer, None if it has more than so many bytes."""
    parts, left = [], most + 1
    while left and (part := answer.raw.read(left, decode_content=False)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts) if left else None


def _as_it_is(request: _Got) -> _Got:
    """Keep `requests` from putting a password of `~/.netrc` in the place of ours."""
    return request


def _bound(answer: Response, **options: Any) -> None:
    """Bound what is read of an answer by `requests` itself, which reads all that comes.

    A head that is cut off looks like a whole one. But it states no length, or what follows is shorter.
    """
    is_stated = answer.headers.get("Content-Length", "").isdecimal()
    if answer.request.method != "HEAD" and not is_stated and answer.headers.get("Transfer-Encoding") != "chunked":
        answer.close()
        raise NotNow("the answer states no length")
    if answer.is_redirect or not options.get("stream"):
        body = answer.raw.read(_MOST_ASIDE, decode_content=True)
        if len(body) == _MOST_ASIDE:
            answer.raw.close()
        answer.raw = io.BytesIO(body)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"https": 443, "http": 80}.get(parts.scheme)


def _realm(answer: Response) -> str:
    """Return where an answer sends for a token."""
    import oras.auth.utils

    realm = oras.auth.utils.parse_auth_header(answer.headers["WWW-Authenticate"]).realm or ""
    return realm if realm.startswith("http") else f"https://{realm}"


def _docker_settings() -> dict[str, Any]:
    """Return Docker's settings, with each registry by its host."""
    folder = os.environ.get("DOCKER_CONFIG") or "~/.docker"
    try:
        settings = json.loads((Path(folder).expanduser() / "config.json").read_bytes())
        by_host = {_host(name): value for name, value in settings.get("auths", {}).items()}
    except FileNotFoundError:
        by_host, settings = {}, {}
    except (OSError, ValueError, AttributeError) as error:
        raise MachineError(f"`config.json` of Docker in `{folder}` can't be read: {error}", "mend it") from None
    if _DOCKER_HUB_LOGIN in by_host:
        by_host.setdefault("registry-1.docker.io", by_host[_DOCKER_HUB_LOGIN])
    return {**settings, "auths": by_host}


def _host(name: str) -> str:
    """Return the host of a registry, which old versions of Docker wrote with `https://` and a path."""
    return name.partition("://")[2].partition("/")[0] if "://" in name else name.partition("/")[0]


def _reason(answer: Response) -> str:
    """Return what the registry says of an error, in its own words."""
    if answer.request.method == "HEAD":
        return ""
    try:
        first = json.loads(answer.raw.read(_MOST_ASIDE, decode_content=True))["errors"][0]
        return f": {_shown(first.get('message') or first['code'])}"
    except (ValueError, LookupError, TypeError, AttributeError):
        return ""


def _pause(answer: Response) -> float:
    """Return for how many seconds the registry asks to be left alone."""
    asked = answer.headers.get("Retry-After", "")
    return float(asked[:6]) if asked.isdecimal() else 0.0


def _shown(value: object) -> str:
    """Return something from elsewhere as one line that can be printed."""
    text = " ".join(str(value).split())[:_MOST_LETTERS]
    return "".join(letter if letter.isprintable() else "?" for letter in text)


_HOW_TO_TRUST = "name the certificates to trust with `REQUESTS_CA_BUNDLE=FILE`; without TLS write `oci+http://`"
_HOW_TO_FIND = "look at the name and the tag; of what is private, a registry may say so until `docker login`"

"""A place at a URL, and the files below it: read, listed and written through `fsspec`, each with a few tries.

Credentials are those that the filesystem's own package finds; there are none of ours. What a URL itself has of them is
in no message.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit, urlunsplit

from ..cache.layout import TEMPORARY
from ..errors import CarryError, Fa4PrecompileError, MachineError, RefusedError, UsageError
from .patience import NotNow, Patience
from .web import Denied, Piece, Web

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_WEB = frozenset({"http", "https"})
_LOCAL = frozenset({"file", "local"})
_FINAL = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError, ValueError)

_Made = TypeVar("_Made")


def scheme_of(place: str) -> str:
    """Return the scheme of a URL in small letters; nothing if a place is no URL."""
    match = _SCHEME.match(place)
    return match[1].lower() if match else ""


def parts_of(url: str) -> SplitResult:
    """Return the parts of a URL. Raises `UsageError` for what is none."""
    try:
        return urlsplit(url)
    except ValueError as error:
        raise UsageError(f"what begins with `{scheme_of(url)}://` is no URL: {error}") from None


def shown(url: str) -> str:
    """Return a URL without what it has of credentials: user, password, and the query, which can be a signature."""
    if not scheme_of(url):
        return url
    parts = parts_of(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


class Remote:
    """A file at a URL, or a folder and what is below it.

    A file below it is named by its path; the file at the URL itself by an empty one. Methods raise `CarryError` for
    what can't be had, after some tries where another can help.
    """

    def __init__(self, url: str, patience: Patience | None = None) -> None:
        self.name = shown(url)
        self._patience = patience or Patience()
        self._is_local = scheme_of(url) in _LOCAL
        self._web: Web | None = None
        self._files: Any = None
        try:
            if scheme_of(url) in _WEB:
                self._base = url
                self._web = Web(self._patience)
            else:
                self._files, self._base = _filesystem(url)
                # The packages of storages try several times themselves.
                self._patience = replace(self._patience, pauses_s=self._patience.pauses_s[:1])
        except ImportError as error:
            raise _missing(scheme_of(url), error) from None

    # Reading

    def whole(self, relative: str, most: int) -> bytes | None:
        """Return a file from its start, at most so many bytes of it; None if there is none."""
        path, name = self._path(relative), self._named(relative)
        if (web := self._web) is not None:
            return self._patience.tried(name, lambda: web.whole(name, path, most))
        data: bytes | None = self._asked(name, most, "cat_file", path, start=0, end=most)
        return data

    def piece(self, relative: str, start: int, length: int) -> Piece | None:
        """Return a piece of a file, shorter only where the file ends, and the size of all of it; None if there is none.

        The size is told by a server on the web only; else it is 0: `size` asks for it.
        """
        path, name = self._path(relative), self._named(relative)
        if (web := self._web) is not None:
            return self._patience.tried(name, lambda: web.piece(name, path, start, length))
        data = self._asked(name, length, "cat_file", path, start=start, end=start + length)
        return None if data is None else Piece(data, 0)

    def size(self, relative: str) -> int | None:
        """Return how many bytes a file has; None if there is none."""
        if self._web is not None:
            piece = self.piece(relative, 0, 1)
            return None if piece is None else piece.total
        name = self._named(relative)
        found = self._asked(name, 0, "info", self._path(relative))
        return None if found is None else _size_of(name, found)

    # Writing

    def require_writable(self) -> None:
        """Raise `UsageError` for a place that can only be read."""
        if self._web is not None:
            raise UsageError(
                f"`{self.name}` can only be read",
                "push to the storage behind it (`s3://`, `gs://`, ...), or to a registry with `oci://`",
            )

    def sizes(self) -> dict[str, int]:
        """Return the files below, by path, with their sizes. One listing, of whatever number of files."""
        found = self._asked(self.name, 0, "find", self._base, detail=True) or {}
        base = self._files._strip_protocol(self._base).rstrip("/") + "/"
        return {
            path.removeprefix(base): _size_of(self.name, details)
            for path, details in found.items()
            if path.startswith(base)
        }

    def write(self, relative: str, data: bytes) -> None:
        """Write a file. Where it is not known to appear whole or not at all, it appears by being renamed."""
        self._put(relative, len(data), "pipe_file", lambda path: (path, data))

    def write_file(self, local: Path) -> None:
        """Write the bytes of a local file to the URL itself, as `write`."""
        self._put("", local.stat().st_size, "put_file", lambda path: (str(local), path))

    def delete(self, relative: str) -> None:
        """Delete a file that is there."""
        self._asked(self._named(relative), 0, "rm_file", self._path(relative))

    # How it is done

    def _put(self, relative: str, size: int, method: str, arguments: Callable[[str], tuple[Any, ...]]) -> None:
        path, name = self._path(relative), self._named(relative)
        if not self._is_local:
            self._asked(name, size, method, *arguments(path), must=True)
            return
        parent = path.rpartition("/")[0]
        temporary = f"{parent}/{TEMPORARY}{secrets.token_hex(8)}"
        self._asked(name, 0, "makedirs", parent, exist_ok=True, must=True)
        self._asked(name, size, method, *arguments(temporary), must=True)
        self._asked(name, 0, "mv", temporary, path, must=True)

    def _path(self, relative: str) -> str:
        if not relative:
            return self._base
        if self._web is None:
            return f"{self._base.rstrip('/')}/{relative}"
        parts = parts_of(self._base)  # its query can be what lets us in
        return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{relative}"))

    def _named(self, relative: str) -> str:
        return f"{self.name.rstrip('/')}/{relative}" if relative else self.name

    def _asked(self, name: str, size: int, method: str, *arguments: Any, must: bool = False, **options: Any) -> Any:
        """Call a method of the filesystem; return None for a file that is not there, unless it `must` be."""
        try:
            return self._patience.tried(name, lambda: self._once(size, method, *arguments, **options))
        except FileNotFoundError as error:
            if must:
                raise CarryError(name, f"there is no such place: {error}", "make the bucket or folder first") from None
            return None
        except PermissionError as error:
            raise Denied(name, f"access is denied: {error}", "look at the credentials of this storage") from None
        except _FINAL as error:
            raise CarryError(name, f"{error}", "look at the URL") from None

    def _once(self, size: int, method: str, *arguments: Any, **options: Any) -> Any:
        from fsspec.asyn import sync

        try:
            if not self._files.async_impl:
                return getattr(self._files, method)(*arguments, **options)
            call = getattr(self._files, f"_{method}")
            return sync(self._files.loop, call, *arguments, timeout=self._patience.whole(size), **options)
        except _FINAL:
            raise
        except ImportError as error:
            raise MachineError(f"a package is missing: {error}", "install it beside fa4-precompile") from None
        except Exception as error:  # each storage's package has its own
            if "Credentials" in type(error).__name__:
                raise CarryError(
                    self.name, f"no credentials: {error}", "set them as for the storage's own tool"
                ) from None
            raise NotNow(f"{type(error).__name__}: {error}".rstrip(": ")) from None


def _filesystem(url: str) -> tuple[Any, str]:
    """Return the filesystem of a URL and the path in it. Raises `ImportError` if a package is missing."""
    import fsspec

    scheme = scheme_of(url)
    known = sorted(set(fsspec.available_protocols()))
    if "::" in url or scheme not in known:
        raise UsageError(
            f"`{shown(url)}` has a scheme that is not known: `{scheme}`",
            f"known are `oci`, `http`, `https`, and what fsspec knows: {', '.join(known)}",
        )
    try:
        # Nothing is remembered of what was there: others write, too.
        files, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ValueError as error:
        raise UsageError(f"`{shown(url)}` is no URL of `{scheme}`: {error}") from None
    except OSError as error:  # some ask their server at once
        raise CarryError(shown(url), f"can't be reached: {error}", "look at the URL, and try again") from None
    return files, path


def _missing(scheme: str, error: ImportError) -> Fa4PrecompileError:
    """Return what it means that a package for a scheme is not installed."""
    try:
        from fsspec.registry import known_implementations
    except ImportError:
        return MachineError("a cache at a URL needs `fsspec`", "`pip install 'fa4-precompile[ship]'`")
    package = known_implementations.get(scheme, {}).get("class", "").partition(".")[0]
    if scheme in _WEB:
        hint = "`pip install 'fa4-precompile[ship]'`"
    elif package == "s3fs":
        hint = "`pip install 'fa4-precompile[s3]'`"
    else:
        hint = f"`pip install {package}`" if package not in ("", "fsspec") else str(error)
    return MachineError(f"`{scheme}://` needs a package that is not installed here", hint)


def _size_of(name: str, details: Any) -> int:
    size = details.get("size")
    if not isinstance(size, int):
        raise RefusedError(name, "its size is not told")
    return size

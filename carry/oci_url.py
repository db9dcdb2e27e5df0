"""The URL of an artifact in an OCI registry: `oci://REGISTRY/NAME:TAG`, or `oci://REGISTRY/NAME@sha256:DIGEST`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import UsageError

# As the OCI distribution specification has them.
_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[::1\]"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_URL = re.compile(
    rf"(?P<scheme>oci|oci\+http)://(?P<registry>(?P<host>{_HOST})(?::[0-9]{{1,5}})?)/(?P<name>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_MOST_LETTERS = 1024
_THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "[::1]"})
_DOCKER_HUB = "docker.io"


@dataclass(frozen=True)
class Place:
    """Where an artifact is.

    Attributes:
        registry: host, and port if one is given, as the user calls it.
        name: the repository in it.
        tag: the tag, or nothing.
        digest: `sha256:` and the digest that the manifest must have, or nothing.
        plain: whether it is spoken to without TLS: on this machine, or where the URL says `oci+http`.
        scheme: `oci`, or `oci+http` if the user says so.
    """

    registry: str
    name: str
    tag: str
    digest: str
    plain: bool
    scheme: str = "oci"

    @property
    def host(self) -> str:
        """Return the host that answers for the registry."""
        return "registry-1.docker.io" if self.registry == _DOCKER_HUB else self.registry

    @property
    def reference(self) -> str:
        """Return what its manifest is asked for by; the digest, if there is one."""
        return self.digest or self.tag

    def url(self, path: str) -> str:
        """Return the URL of a part of the repository, by the registry's protocol."""
        return f"{'http' if self.plain else 'https'}://{self.host}/v2/{self.name}/{path}"

    def __str__(self) -> str:
        mark = "@" if self.digest else ":"
        return f"{self.scheme}://{self.registry}/{self.name}{mark}{self.reference}"

    @classmethod
    def parse(cls, url: str) -> Place:
        """Read a URL. Raises `UsageError`."""
        match = _URL.fullmatch(url) if len(url) <= _MOST_LETTERS else None
        if match is None:
            raise UsageError(
                f"`{url[:_MOST_LETTERS]}` is no URL of an artifact in a registry",
                "write `oci://REGISTRY/NAME:TAG`, the name in lower case",
            )
        if not match["tag"] and not match["digest"]:
            raise UsageError(f"`{url}` names neither a tag nor a digest", f"write `{url}:TAG`")
        plain = match["scheme"] == "oci+http" or match["host"] in _THIS_MACHINE
        return cls(match["registry"], match["name"], match["tag"] or "", match["digest"] or "", plain, match["scheme"])

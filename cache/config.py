"""What the environment says, read once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from .trust import Trust


@dataclass(frozen=True)
class Config:
    """Settings of a process.

    Attributes:
        roots: cache directories in the order of search; the first is the one that is written.
        trust: whose files are loaded.
    """

    roots: tuple[Path, ...]
    trust: Trust = Trust.OWN

    @classmethod
    def from_env(cls, environment: Mapping[str, str] = os.environ) -> Config:
        """Read `FA4_PRECOMPILE_CACHE`, a `:`-separated list of folders, else the user's cache folder.

        The default is never below `/tmp`, where anybody can make a folder first.
        """
        named = [Path(part) for part in environment.get("FA4_PRECOMPILE_CACHE", "").split(os.pathsep) if part]
        return cls(roots=tuple(named) or (_default_root(environment),))


def _default_root(environment: Mapping[str, str]) -> Path:
    base = environment.get("XDG_CACHE_HOME", "")
    if Path(base).is_absolute():
        return Path(base, "fa4-precompile")
    try:
        home = Path(environment.get("HOME") or Path.home())
    except RuntimeError:  # a user id without an account, as in some containers
        raise UsageError("there is no home folder to keep a cache in", "name one with `--cache DIR`") from None
    return home / ".cache" / "fa4-precompile"

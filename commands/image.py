"""What an image for jobs could do without: what is installed for FlashAttention's compiler and for nothing else."""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

_NAME = re.compile(r"[\w.-]+")


@dataclass(frozen=True)
class Installed:
    """An installed distribution.

    Attributes:
        name, version: as its metadata have them.
        bytes: size of its files that are there.
        requires: the distributions that it requires, without those of extras; normalized names.
    """

    name: str
    version: str
    bytes: int
    requires: frozenset[str]


def installed() -> Mapping[str, Installed]:
    """Return all that is installed, by normalized name."""
    found = {}
    for distribution in importlib.metadata.distributions():
        try:
            name, version = distribution.metadata["Name"], distribution.version
            needed = [one for one in distribution.requires or () if "extra ==" not in one]
        except Exception:  # somebody else's, broken
            continue
        if name and _plain(name) not in found:  # the first on the path is the one that is imported
            requires = frozenset(_plain(match[0]) for one in needed if (match := _NAME.match(one)))
            found[_plain(name)] = Installed(name, version, _size(distribution), requires)
    return found


def droppable(installed: Mapping[str, Installed], distribution: str, needed: Sequence[str]) -> list[Installed]:
    """Return what is required by a distribution, by itself or through others, and by nothing else that is installed.

    `needed` are distributions that stay with what they require. The largest come first.
    """
    of_it = _closure(installed, [_plain(distribution)])
    roots = [name for name in installed if name not in of_it]
    stays = _closure(installed, [*roots, *map(_plain, needed)]) | {_plain(distribution)}
    return sorted((installed[name] for name in of_it - stays), key=lambda one: (-one.bytes, one.name))


def _size(distribution: importlib.metadata.Distribution) -> int:
    size = 0
    for path in distribution.files or ():
        try:
            size += os.stat(str(distribution.locate_file(path))).st_size
        except OSError:
            continue
    return size


def _closure(installed: Mapping[str, Installed], names: Iterable[str]) -> set[str]:
    found: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name in installed and name not in found:
            found.add(name)
            left += installed[name].requires
    return found


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()

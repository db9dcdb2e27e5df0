"""Versions as Python's distributions have them, and ranges of them. Standard library only, as a job reads them.

The order is that of PEP 440. `packaging` has it too, and no job needs that installed; a test compares the two.
"""

from __future__ import annotations

import math
import re
from operator import eq, ge, gt, le, lt, ne
from typing import NamedTuple

_VERSION = re.compile(
    r"([0-9]+(?:\.[0-9]+)*)(?:(a|b|rc)([0-9]+))?(?:\.post([0-9]+))?(?:\.dev([0-9]+))?(?:\+.+)?", re.ASCII
)
_PART = re.compile(r"(==|!=|<=|>=|<|>) *([^ ]+)")
_MOST_LETTERS = 100  # Python takes time that grows with the square of a number's digits

_NONE = -1
_LAST = math.inf


class Version(NamedTuple):
    """A version, in the order of versions. What stands behind a `+`, a local build of it, does not count.

    Attributes:
        release: its numbers, without zeros at the end.
        pre: alpha, beta or release candidate, and which; of a version that is none, what sorts it.
        post, dev: the numbers behind `.post` and `.dev`, or what sorts a version without.
    """

    release: tuple[int, ...]
    pre: tuple[str, int]
    post: int
    dev: float

    @classmethod
    def parse(cls, text: str) -> Version:
        """Read a version such as `4.0.0b36`. Raises `ValueError`."""
        match = _VERSION.fullmatch(text) if len(text) <= _MOST_LETTERS else None
        if match is None:
            raise ValueError(f"`{text[:_MOST_LETTERS]}` is no version such as 4.6.1 or 4.0.0b36")
        release, stage, pre, post, dev = match.groups()
        numbers = [int(number) for number in release.split(".")]
        while len(numbers) > 1 and not numbers[-1]:
            numbers.pop()
        if stage is None:  # `1.dev0` comes before `1a0`, and that before `1`
            stage = "" if dev is not None and post is None else "z"
        return cls(
            tuple(numbers),
            (stage, int(pre or 0)),
            _NONE if post is None else int(post),
            _LAST if dev is None else int(dev),
        )

    @property
    def is_early(self) -> bool:
        """Whether it comes before the release that it is named for."""
        return self.dev != _LAST or self.pre[0] in ("a", "b", "rc")


class Range(NamedTuple):
    """Which versions are meant, such as `>=4.6.0,<4.6.2`: those for which each part holds."""

    text: str
    parts: tuple[tuple[str, Version], ...]

    @classmethod
    def parse(cls, text: str) -> Range:
        """Read a range. Raises `ValueError`."""
        parts = []
        for part in text.split(","):
            match = _PART.fullmatch(part.strip())
            if match is None:
                raise ValueError(f"`{part.strip()}` is no part of a range such as >=4.6.0,<4.6.2")
            parts.append((match[1], Version.parse(match[2])))
        return cls(text, tuple(parts))

    def has(self, text: str) -> bool:
        """Return whether a version is in the range; one that can't be read is in none."""
        try:
            version = Version.parse(text)
        except ValueError:
            return False
        return all(_holds(version, operator, than) for operator, than in self.parts)


def _holds(version: Version, operator: str, than: Version) -> bool:
    compare = {"==": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge}[operator]
    if not compare(version, than):
        return False
    # As PEP 440 has it: what comes before 4.6.2 is not below it, nor is what is patched after it above.
    if operator == "<" and (version.release, version.post) == (than.release, than.post):
        return than.is_early or not version.is_early
    if operator == ">" and (version.release, version.pre) == (than.release, than.pre) and than.dev == _LAST:
        return than.post != _NONE or version.post == _NONE
    return True

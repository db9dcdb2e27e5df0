"""What a function does that is compiled into a kernel, in words that are the same in every process. Data only."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass

from .codec import Fields

_SCHEMA = "fa4-precompile/function/1"

Part = tuple[str, str]
"""Where something is that a function reads, by the names that lead to it, and what is there."""


@dataclass(frozen=True)
class Description:
    """What a function does, part by part; the first part is the function itself.

    docs/decisions/0032-what-a-function-does.md says what gets in.
    """

    parts: Sequence[Part]

    @property
    def digest(self) -> str:
        """Return the SHA-256 (hex) of all of it, by which kernels are told apart."""
        return hashlib.sha256(json.dumps([_SCHEMA, self.parts]).encode()).hexdigest()

    def render(self) -> list[str]:
        """Return the parts as JSON, one after the other."""
        return list(itertools.chain.from_iterable(self.parts))

    @classmethod
    def parse(cls, fields: Fields, name: str) -> Description:
        """Read what `render` wrote. Raises `RecordError`."""
        words = fields.words(name)
        if len(words) % 2:
            raise fields.wrong(f"`{name}` is no list of pairs")
        return cls(tuple(zip(words[::2], words[1::2], strict=True)))

    def differences(self, other: Description) -> list[tuple[str, str, str]]:
        """Return (where, what is there, what is there in the other one) for each part that differs."""
        mine, theirs = dict(self.parts), dict(other.parts)
        both = dict.fromkeys(itertools.chain(mine, theirs))
        return [(at, mine.get(at, ""), theirs.get(at, "")) for at in both if mine.get(at) != theirs.get(at)]

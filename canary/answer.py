"""What travels between a canary and the processes that make its calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..cache.key import BlobDigest, KernelId
from ..providers.protocol import Provider
from ..providers.real import Outcome


@dataclass(frozen=True)
class Setting:
    """What such a process is told first: whose calls they are, and the seed of their values."""

    provider: Provider
    seed: int


@dataclass(frozen=True)
class Ready:
    """The process has imported the provider. `torch` and `cuda` are torch's version and its CUDA's."""

    torch: str
    cuda: str


@dataclass(frozen=True)
class Taken:
    """A kernel that a call has looked up and got."""

    toolchain: str
    kernel: KernelId
    blob: BlobDigest


@dataclass(frozen=True)
class Answer:
    """What became of a call.

    Attributes:
        outcome: what it came to; None if it did not end.
        taken: the kernels that it has looked up, as far as that is known.
        failure: why it did not end, in a line; else empty.
        report: a traceback, or the last output of a process that died.
        is_sound: whether the process can make another call.
        is_made: whether the call was made: else it says nothing of kernels.
    """

    outcome: Outcome | None = None
    taken: Sequence[Taken] = ()
    failure: str = ""
    report: str = ""
    is_sound: bool = True
    is_made: bool = True

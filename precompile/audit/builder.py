"""One build of two that are compared: a process that is told what to build on its standard input.

It says how it goes on its standard output, a line for each call of a `Progress`: its name and its arguments, as JSON.
"""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...cache.store import Root
from ...cache.target import Target
from ...errors import Fa4PrecompileError
from ...providers.installed import installed_toolchain
from ..build import build
from ..spec.spec import Spec


@dataclass(frozen=True)
class Order:
    """What is to be built, and where."""

    spec: Spec
    target: Target
    cache: Path
    jobs: int
    time_limit: float


def main() -> None:
    """Build what standard input says. Ends with 1 if that can't be done; kernels that fail are told."""
    order: Order = pickle.load(sys.stdin.buffer)
    spec = order.spec
    toolchain = installed_toolchain(spec.provider, order.target.machine)
    try:
        build(spec, order.target, toolchain, Root(order.cache), _Told(), order.jobs, order.time_limit)
    except Fa4PrecompileError as error:
        sys.exit(str(error))


class _Told:
    """A `Progress` that tells another process."""

    def note(self, message: str) -> None:
        """Say nothing: the other process says what is built."""

    def start(self, total: int, jobs: int) -> None:
        """Begin with compiling."""
        _tell("start", total, jobs)

    def running(self, labels: Sequence[str]) -> None:
        """Tell what runs."""
        _tell("running", labels)

    def done(self, label: str, seconds: float, where: str) -> None:
        """Count a kernel that was built."""
        _tell("done", label, seconds, where)

    def failed(self, label: str, reason: str) -> None:
        """Count a kernel that failed."""
        _tell("failed", label, reason)

    def finish(self) -> None:
        """End."""
        _tell("finish")


def _tell(*words: object) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()

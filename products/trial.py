"""The builder's last test of a blob: that a process with nothing but the run-time libraries can load it.

One such process, started for the first blob, forks one for each: a start of Python and of a library of 43 MB for all of
a build, instead of one for each kernel.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection
from contextlib import suppress
from types import TracebackType
from typing import IO

from ..errors import ProductError
from . import load
from .foreign import is_for_other_hosts, provided, require_could_load

_TIME_LIMIT_S = 60


class Trial:
    """Tries to load blobs. Use it in a `with` statement; from one thread only."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None
        self._provided: Collection[str] = ()

    def __enter__(self) -> Trial:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def require_loads(self, blob: bytes, symbol: str) -> None:
        """Raise `ProductError` unless a process that has loaded no other blob loads this one, with its symbol.

        Of a blob for another kind of hosts, what can be known without one is looked at.
        """
        if is_for_other_hosts(blob):
            self._provided = self._provided or provided()
            require_could_load(blob, self._provided)
            return
        process, said = self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(f"{symbol} {len(blob)}\n".encode() + blob)
            process.stdin.flush()
            if not select.select([process.stdout], [], [], _TIME_LIMIT_S)[0]:
                self._end()
                raise ProductError(f"a fresh process did not load it within {_TIME_LIMIT_S} s")
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = b""
        if not answer:
            process.wait()
            said.seek(0)
            words = said.read().decode(errors="replace")[-500:].strip()
            self._end()
            raise ProductError(f"a fresh process can't load it: {words}")
        if reason := json.loads(answer):
            raise ProductError(f"a fresh process can't load it: {reason}")

    def _start(self) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
        if self._process is None or self._said is None:
            self._said = tempfile.TemporaryFile()
            self._process = subprocess.Popen(
                [sys.executable, "-c", _LOAD],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                start_new_session=True,  # a group of its own; and Ctrl-C is for the builder to handle
            )
        return self._process, self._said

    def _end(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # with the child that hangs
            self._process.communicate()
            self._process = None
        if self._said is not None:
            self._said.close()
            self._said = None


# Like the fork server, it imports nothing from the working folder.
_LOAD = f"import sys; sys.path = [p for p in sys.path if p]; from {load.__name__} import main; main()"

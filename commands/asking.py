"""Asking another program something short: without our input, and not for ever."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence

_LOG = logging.getLogger("fa4_precompile")

_MOST_SECONDS = 30.0
_MOST_BYTES = 65536


def answer_of(
    command: Sequence[str], environment: Mapping[str, str] | None = None, most_seconds: float = _MOST_SECONDS
) -> str | None:
    """Return what a program prints on standard output; None if it can't be started, fails, or takes too long."""
    # A file, as the end of a pipe would be waited for if the program leaves a daemon behind that holds it.
    try:
        with tempfile.TemporaryFile() as output:
            program = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # so that what it started can be ended with it
            )
            try:
                code = program.wait(most_seconds)
            except BaseException:
                os.killpg(program.pid, signal.SIGKILL)
                program.wait()
                raise
            output.seek(0)
            answer = output.read(_MOST_BYTES).decode(errors="replace") if code == 0 else None
            _LOG.debug("`%s` ended with %d and said %r", shlex.join(command), code, answer)
            return answer
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:  # ValueError: a null byte in a word
        _LOG.debug("`%s` does not answer: %s", shlex.join(command), error)
        return None

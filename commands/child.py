"""A command as our child, which for whoever started us is as if it were in our place."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

PYTHON_IGNORES = (signal.SIGPIPE, signal.SIGXFSZ)
"""What a process must not inherit as ignored: with SIGPIPE ignored, `job | head` would never end the job."""

_PASSED_ON = (
    signal.SIGCONT,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGTSTP,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_HEARD = (*_PASSED_ON, signal.SIGCHLD)

# By these a shell, or the terminal, stops a job to go on with it later. SIGSTOP is somebody's who knows the process.
_STOPPED_BY_A_SHELL = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)


def run_child(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command to its end and return its exit code, negative for the signal that ended it.

    From here on signals are blocked in this process: those that it gets are the command's. Raises `OSError` if the
    command can't be started.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if it is ignored, nobody says how the child ended
    child = os.posix_spawnp(command[0], list(command), environment, setsigmask=before, setsigdef=PYTHON_IGNORES)
    while (code := _code_of(child)) is None:
        heard = signal.sigwaitinfo(_HEARD)
        if heard.si_signo in _PASSED_ON and not _has_it_already(child, heard):
            _send(child, heard.si_signo)
    return code


def end_as(code: int) -> NoReturn:
    """End this process with the exit code, or by the signal, that its child ended with."""
    if code < 0:
        number = -code
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))  # it has left one
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
        code = 128 + number  # still here: the first process of a container is not killed by its own signals
    sys.exit(code)


def _code_of(child: int) -> int | None:
    """Return how the child ended, None if it did not. As the first process of a container we are left with others' too.

    When a shell has stopped the child, this process stops as well, so that the shell sees it.
    """
    code = None
    while True:
        try:
            number, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        except ChildProcessError:
            return code
        if number == 0:
            return code
        if os.WIFSTOPPED(status):
            if number == child and os.WSTOPSIG(status) in _STOPPED_BY_A_SHELL:
                os.kill(os.getpid(), signal.SIGSTOP)
        elif number == child:
            code = os.waitstatus_to_exitcode(status)


def _has_it_already(child: int, heard: signal.struct_siginfo) -> bool:
    """Return whether a signal is the terminal's, which goes to all of a process group: Ctrl-C, a line that hangs up."""
    try:
        return heard.si_code > 0 and os.getpgid(child) == os.getpgrp()
    except ProcessLookupError:
        return True


def _send(child: int, number: int) -> None:
    try:
        os.kill(child, number)
    except OSError:
        pass  # one that runs as somebody else, as `sudo` does, takes none of ours

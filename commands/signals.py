"""Signals that end a command as Ctrl-C does."""

from __future__ import annotations

from typing import NoReturn


def interrupt_on_sigterm() -> None:
    """Let SIGTERM, and the end of the terminal, interrupt the command: what is half-written is cleaned up."""
    import signal

    def interrupt(_number: int, _frame: object) -> NoReturn:
        raise KeyboardInterrupt  # no `Exception`, so that nothing on the way swallows it

    signal.signal(signal.SIGTERM, interrupt)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # not under `nohup`
        signal.signal(signal.SIGHUP, interrupt)

"""What a signal does to a command."""

from __future__ import annotations

from typing import NoReturn


def interrupt_on_sigterm() -> None:
    """End as by Ctrl-C where the operating system, or a scheduler, asks to."""
    import signal

    def interrupt(_number: int, _frame: object) -> NoReturn:
        raise KeyboardInterrupt  # no `Exception`, so that nothing on the way swallows it

    signal.signal(signal.SIGTERM, interrupt)

"""What settings can be, by name. Imports next to nothing: `--help` says it, and is to be quick."""

from __future__ import annotations

import enum

LEVELS = ("debug", "info", "warning", "error")
"""From which level on messages can be asked for, by the names of `logging`."""


class OnMiss(enum.Enum):
    """What a job does when its cache does not have a kernel."""

    ERROR = "error"
    """Raise `KernelMissing`, and forbid every other compile of the process: strict mode."""

    WARN = "warn"
    """Compile, as the provider would without us, and say so once for each kernel."""

    COMPILE = "compile"
    """Compile, and say nothing."""

    STORE = "store"
    """Compile, and publish to the first root that can be written."""


class Compiler(enum.Enum):
    """Whether a job has the provider's compiler."""

    AUTO = "auto"
    """Where it is installed."""

    PRESENT = "present"
    """As the provider imports it."""

    ABSENT = "absent"
    """The provider is imported with stand-ins for it, installed or not; what the cache does not have raises."""


def allowed(word: str, kind: type[enum.Enum]) -> str:
    """Return the hint for a word that is no choice of a kind: the nearest that is one, and all that there are."""
    import difflib  # for who has mistyped

    words = [str(choice.value) for choice in kind]
    nearest = "".join(f"did you mean `{close}`? " for close in difflib.get_close_matches(word, words, n=1))
    return f"{nearest}allowed: {', '.join(words)}"

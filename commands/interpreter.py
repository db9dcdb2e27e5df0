"""Which Python a command will run, seen from outside, and whether it has this package."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .asking import answer_of

# A script that starts a script that starts `env`: more steps than that is a circle.
_MOST_STEPS = 8

_PYTHON = re.compile(r"(python|pypy)\d*(\.\d+)?t?")

# Scripts in Python whose own interpreter is not the one that they start.
_STARTERS_OF_OTHERS = frozenset({"conda", "hatch", "mamba", "nox", "pdm", "pipenv", "pipx", "poetry", "tox", "uv"})

# What decides where Python looks for packages: isolated, no environment, safe path, no user's folder, no site.
_FLAGS = "IEPsS"

# The second line of a script whose shebang would be too long for the kernel, as pip, conda and uv write it.
_LONG_SHEBANG = "'''exec' "

# Answers without an import of anything big, in any Python from 3.8 on. The argument is what stands first on the job's
# path, in the place of what `-c` puts there.
_QUESTION = """
import sys
from importlib.metadata import entry_points
from importlib.util import find_spec
if len(sys.argv) > 1 and not sys.flags.isolated and not getattr(sys.flags, "safe_path", False):
    sys.path[0] = sys.argv[1]
found = entry_points()
group = found.select(group="torch.backends") if hasattr(found, "select") else found.get("torch.backends", ())
is_there = find_spec("fa4_precompile") is not None and any(entry.name == "fa4_precompile" for entry in group)
print("fa4-precompile is", "there" if is_there else "missing")
"""


@dataclass(frozen=True)
class Interpreter:
    """A Python that a command will run.

    Attributes:
        program: the program, as it will be started.
        flags: those that decide where it looks for packages.
        folder: what it has first on its path, a script's folder; None for the working folder.
        environment: its variables.
    """

    program: str
    flags: tuple[str, ...]
    folder: str | None
    environment: Mapping[str, str]

    def __str__(self) -> str:
        return shlex.join([self.program, *self.flags])

    def lacks_us(self) -> bool:
        """Return whether it says that it does not have this package with its entry point; False if it says nothing."""
        folder = [] if self.folder is None else [self.folder]
        answer = answer_of([self.program, *self.flags, "-B", "-c", _QUESTION, *folder], self.environment)
        return answer is not None and "fa4-precompile is missing" in answer.splitlines()


def interpreter_of(command: Sequence[str], environment: Mapping[str, str]) -> Interpreter | None:
    """Return the Python that a command will run; None if that can't be seen: a binary, a shell, a job starter.

    Looks through `env`, and through scripts, whose first lines say what runs them.
    """
    for _ in range(_MOST_STEPS):
        program = shutil.which(command[0], path=environment.get("PATH", os.defpath)) if command else None
        if program is None:
            return None
        name = Path(program).name
        if _PYTHON.fullmatch(name):
            return _python(program, command[1:], environment)
        if name == "env":
            inner = _within_env(command[1:], environment)
            if inner is None:
                return None
            command, environment = inner
            continue
        line = _shebang(program) if name not in _STARTERS_OF_OTHERS else []
        if not line:
            return None
        command = [*line, program, *command[1:]]
    return None


def _python(program: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Interpreter:
    flags: list[str] = []
    rest = list(arguments)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        if word.startswith("--"):
            del rest[: word == "--check-hash-based-pycs"]
            continue
        for place, letter in enumerate(word[1:], 2):
            if letter in "cm":  # a program, or a module: the working folder is first
                return Interpreter(program, tuple(flags), None, environment)
            if letter in "WX":
                del rest[: place == len(word)]  # its value is the rest of the word, else the next one
                break
            if letter in _FLAGS:
                flags.append(f"-{letter}")
    return Interpreter(program, tuple(flags), _folder(rest[0]) if rest and rest[0] != "-" else None, environment)


def _folder(script: str) -> str:
    path = os.path.realpath(script)
    return path if os.path.isdir(path) else os.path.dirname(path)


def _within_env(
    arguments: Sequence[str], environment: Mapping[str, str]
) -> tuple[Sequence[str], Mapping[str, str]] | None:
    """Return the command that `env` starts, and its environment; None for an option that is not known here."""
    words, variables = list(arguments), dict(environment)
    while words:
        word = words[0]
        if word in ("-i", "-", "--ignore-environment"):
            variables.clear()
        elif word in ("-u", "--unset") and len(words) > 1:
            variables.pop(words.pop(1), None)
        elif word.startswith("--unset="):
            variables.pop(word.removeprefix("--unset="), None)
        elif word.startswith("-S"):
            try:
                words[1:1] = shlex.split(word[2:] or words.pop(1))
            except (IndexError, ValueError):
                return None
        elif word.startswith("-") and word != "--":
            return None
        elif "=" in word:
            name, _, value = word.partition("=")
            variables[name] = value
        elif word != "--":
            return words, variables
        del words[0]
    return None


def _shebang(program: str) -> list[str]:
    """Return what the system starts a script with; nothing if it is none, or can't be read."""
    try:
        with open(program, "rb") as file:
            lines = file.read(4096).decode(errors="surrogateescape").split("\n")
        if not lines[0].startswith("#!"):
            return []
        if len(lines) > 1 and lines[1].startswith(_LONG_SHEBANG):
            return shlex.split(lines[1], comments=True)[1:2]
        return lines[0][2:].strip().split(None, 1)  # the system takes all that follows for one word
    except (OSError, ValueError):
        return []

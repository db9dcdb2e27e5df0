"""What can go wrong, one class per thing that a person can act on.

Fields, not strings: a caller can ask `error.line`; `str(error)` is the sentence, `error.hint` what to do about it.
"""

from __future__ import annotations

from dataclasses import dataclass


class Fa4PrecompileError(Exception):
    """Base of every error of this package.

    `exit_code` is what the command line ends with (docs/reference/cli.md).
    """

    exit_code = 1
    hint: str = ""

    def __reduce__(self) -> tuple[object, ...]:
        """Travel from one process to another by fields; an exception would travel by its positional arguments."""
        names = getattr(self, "__dataclass_fields__", None)
        if names is None:
            return type(self), self.args
        return type(self), tuple(getattr(self, name) for name in names)


@dataclass(eq=False)
class SpecError(Fa4PrecompileError):
    """A spec, or a part of the command line that names one, is wrong.

    `line` and `column` count from 1; 0 means that the error has no place inside the file.
    """

    source: str
    line: int
    column: int
    message: str
    hint: str = ""

    exit_code = 2

    def __str__(self) -> str:
        where = f"{self.source}:{self.line}:{self.column}" if self.line else self.source
        return f"{where}: {self.message}"


@dataclass(eq=False)
class UsageError(Fa4PrecompileError):
    """The command line asks for something that can't be meant."""

    message: str
    hint: str = ""

    exit_code = 2

    def __str__(self) -> str:
        return self.message


@dataclass(eq=False)
class MachineError(Fa4PrecompileError):
    """This machine can't do it: no linker, no DSL, an arch that the DSL does not know, a full disk."""

    message: str
    hint: str = ""

    exit_code = 3

    def __str__(self) -> str:
        return self.message


@dataclass(eq=False)
class UntrustedError(Fa4PrecompileError):
    """A cache, or a part of it, could have been written by somebody else."""

    path: str
    reason: str

    exit_code = 4

    @property
    def hint(self) -> str:  # type: ignore[override]
        """The command that mends it."""
        return f"`chmod go-w {self.path}`, or `chown` it to you; or use a cache of your own with `--cache DIR`"

    def __str__(self) -> str:
        return f"refused, `{self.path}` is not trusted: {self.reason}"


@dataclass(eq=False)
class CacheError(Fa4PrecompileError):
    """A cache can't be used: it is not there, is no cache, or has a layout that this version does not know."""

    path: str
    message: str
    hint: str = ""

    exit_code = 2

    def __str__(self) -> str:
        return f"`{self.path}`: {self.message}"


@dataclass(eq=False)
class RecordError(Fa4PrecompileError):
    """A JSON file of the cache is damaged or of an unknown schema."""

    path: str
    reason: str
    hint: str = "build the spec again: damaged kernels are replaced"

    def __str__(self) -> str:
        return f"`{self.path}`: {self.reason}"


@dataclass(eq=False)
class UnstableKey(Fa4PrecompileError):
    """A key holds a value that has no meaning outside this process (a tensor, an object known by its address)."""

    position: str
    type_name: str
    hint: str = "a kernel with such a key can't be stored; FlashAttention compiles it in the job"

    def __str__(self) -> str:
        return f"key position `{self.position}` holds a {self.type_name}, which can't be written down"


@dataclass(eq=False)
class LoadError(Fa4PrecompileError):
    """A shared object whose bytes are right could not be loaded into this process."""

    symbol: str
    reason: str
    hint: str = "`fa4-precompile doctor` says which run-time library is missing"

    def __str__(self) -> str:
        return f"kernel `{self.symbol}` does not load: {self.reason}"


class Interrupted(Fa4PrecompileError):
    """The command line was interrupted, by SIGINT or SIGTERM. What was published stays."""

    exit_code = 130

    def __str__(self) -> str:
        return "interrupted; what was built is kept, and the next build goes on from there"

"""What can go wrong, one class per thing that a person can act on.

Fields, not strings: a caller can ask `error.line`; `str(error)` is the sentence, `error.hint` what to do about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


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
    """The command line asks for something that can't be meant.

    `axis` is that of a spec which is to blame, if it is one.
    """

    message: str
    hint: str = ""
    axis: str = ""

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
    def hint(self) -> str:  # type: ignore[override]  # follows from the fields, where others are given theirs
        """The command that mends it."""
        return (
            f"`chmod go-w {self.path}`, or `chown` it to you; or say what a sealed cache must be, by `--expect` or "
            "`--trust-key`, and it may be anybody's; or use a cache of your own with `--cache DIR`"
        )

    def __str__(self) -> str:
        return f"refused, `{self.path}` is not trusted: {self.reason}"


class NotVouchedFor(UntrustedError):
    """A cache is not the one that is expected, or not signed by a key that is trusted."""

    hint = (
        "get it again from who built it; `fa4-precompile fingerprint` says what it is, `seal --sign KEY` signs it, "
        "and FA4_PRECOMPILE_EXPECT and FA4_PRECOMPILE_TRUST_KEY say what it must be and who is trusted"
    )


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
class CarryError(Fa4PrecompileError):
    """A place that a cache is carried to or from can't be reached, or gives up half-way. What is published stays."""

    place: str
    message: str
    hint: str = "try again: what has arrived is kept"

    exit_code = 3

    def __str__(self) -> str:
        return f"`{self.place}`: {self.message}"


@dataclass(eq=False)
class RefusedError(Fa4PrecompileError):
    """What was carried is not what it says, or not what was expected. Nothing of it is used."""

    place: str
    reason: str
    hint: str = "have it made again by who made it, and ask where it came from"

    exit_code = 4

    def __str__(self) -> str:
        return f"refused, `{self.place}`: {self.reason}"


@dataclass(eq=False)
class KnownBadError(Fa4PrecompileError):
    """Kernels for a target are refused that are known to hang, or to be wrong, as what is installed makes them.

    `kernels` are named in words; `reasons` are what goes wrong, each with its source.
    """

    target: str
    kernels: Sequence[str]
    reasons: Sequence[str]
    hint: str = (
        "install other releases, as the source says; or build it all the same with `--allow-known-bad`; or switch the "
        "entry off in a list of your own, by its id"
    )

    exit_code = 4

    def __str__(self) -> str:
        more = len(self.kernels) - 1
        others = f" and {more:,} more kernel{'s' if more > 1 else ''}" if more else ""
        what = f"`{self.kernels[0]}`{others} for {self.target}"
        return f"refused, {what} {'are' if more else 'is'} known to be bad: {'; '.join(self.reasons)}"


@dataclass(eq=False)
class UnstableKey(Fa4PrecompileError):
    """A key holds a value that has no meaning outside this process (a tensor, an object known by its address)."""

    position: str
    type_name: str
    hint: str = "a kernel with such a key can't be stored; it is compiled in the job"

    def __str__(self) -> str:
        return f"key position `{self.position}` holds a {self.type_name}, which can't be written down"


@dataclass(eq=False)
class Unidentifiable(Fa4PrecompileError):
    """A function of the user's reads what can't be recognized in another process.

    `path` is which part, by the names that lead to it; empty for the function itself. `what` says what it is.
    """

    path: str
    what: str
    hint: str

    def __str__(self) -> str:
        return f"`{self.path}` {self.what}" if self.path else self.what


class ProductError(Fa4PrecompileError):
    """What the compiler produced is not what was asked for."""


@dataclass(eq=False)
class CompilerAbsent(Fa4PrecompileError):
    """A job without a compiler came by something that only the compiler can do.

    `what` is that, in the words of the source; `where` is the file and line.
    """

    what: str
    where: str = ""
    hint: str = "put the call into the spec and build it; or run with the DSL, and `FA4_PRECOMPILE_COMPILER=present`"

    def __str__(self) -> str:
        at = f" at {self.where}" if self.where else ""
        return f"`{self.what}`{at} needs the compiler, which this job runs without"


@dataclass(eq=False)
class LoadError(Fa4PrecompileError):
    """A shared object whose bytes are right could not be loaded into this process."""

    symbol: str
    reason: str
    hint: str = "`fa4-precompile doctor` says which run-time library is missing"

    def __str__(self) -> str:
        return f"kernel `{self.symbol}` does not load: {self.reason}"


@dataclass(eq=False)
class KernelMissing(Fa4PrecompileError):
    """A job asked for a kernel that its cache does not have, and `on_miss` is `error`.

    Attributes:
        slot: the provider's compile cache that was asked.
        key_fields: the key's positions by name, as JSON.
        reason: a `MissReason`'s value; docs/reference/miss-reasons.md has the remedy for each.
        details: what was found, a sentence for each root.
        nearest: the kernels of the cache that differ least, and in what.
        missing_env: variables that the job would have to set for a kernel that is there.
        spec_lines: the entry that adds the call to a spec; empty if it can't be told from the call.
    """

    slot: str
    key_fields: Mapping[str, object]
    reason: str
    details: Sequence[str]
    nearest: Sequence[str] = ()
    missing_env: Mapping[str, str] = field(default_factory=dict)
    spec_lines: str = ""

    @property
    def hint(self) -> str:  # type: ignore[override]  # follows from the fields, where others are given theirs
        """What to do; docs/reference/miss-reasons.md says more."""
        if self.missing_env:
            return "set in the job: " + " ".join(f"{name}={value}" for name, value in self.missing_env.items())
        if self.reason == "function" and not self.nearest:  # nobody could recognize it, so building it is no remedy
            return "write the function as the details say"
        hints = {
            "absent": "add the call to a spec and build it",
            "arch": "build for this GPU too; `fa4-precompile targets --detect` prints its profile",
            "damaged": "`fa4-precompile verify` says what is damaged; building the spec again replaces it",
            "device": "the details say what to set",
            "function": "build the spec with the function as the job has it",
            "key": "the call can't be served from a cache; pass numbers where the position names a tensor",
            "layout": "name the folder that `fa4-precompile build` wrote",
            "load": "`fa4-precompile doctor` says which run-time library is missing",
            "sm-count": "build for this GPU too; `fa4-precompile targets --detect` prints its profile",
            "toolchain": "build the cache with what the job has installed, and with its variables",
            "unreadable": "let the job's user read the folder",
            "untrusted": "`chmod go-w` what is named, or `chown` it to the job's user; or say what a sealed cache must "
            "be, by FA4_PRECOMPILE_EXPECT or FA4_PRECOMPILE_TRUST_KEY",
        }
        return hints.get(self.reason, "see docs/reference/miss-reasons.md")

    def __str__(self) -> str:
        lines = [f"no kernel for a call of slot `{self.slot}` ({self.reason})", *self.details]
        lines += [f"nearest: {line}" for line in self.nearest]
        if self.spec_lines:
            lines += ["the spec lines that add it:", *(f"  {line}" for line in self.spec_lines.splitlines())]
        return "\n  ".join([*lines, f"hint: {self.hint}"])


@dataclass(eq=False)
class CompileForbidden(Fa4PrecompileError):
    """Something in the process compiled a kernel, and `on_miss` is `error`. `stack` is who asked, innermost last."""

    function: str
    stack: Sequence[str]
    hint: str = "add the call to a spec and build it, or run with `on_miss` set to `warn`"

    def __str__(self) -> str:
        return f"`{self.function}` is about to be compiled, which strict mode forbids; asked for by\n" + "".join(
            self.stack
        )


@dataclass(eq=False)
class NothingReported(Fa4PrecompileError):
    """A job has ended well, and no process of it had a loader, as far as `run` can tell."""

    command: str
    modules: Sequence[str]

    @property
    def hint(self) -> str:  # type: ignore[override]  # follows from the fields, where others are given theirs
        """What to do, by what can be the cause."""
        return (
            "let the job's Python have fa4-precompile and PyTorch, and its processes this environment (no `env -i`); "
            "for processes on other machines name a file that they share with `--report FILE`; for a command that "
            "needs no kernel there is `--no-require-report`"
        )

    def __str__(self) -> str:
        imported = " or ".join(f"`{module}`" for module in self.modules)
        return (
            f"`{self.command}` ended well, and none of its processes reported: none has imported {imported} with "
            "a loader in place, so whatever kernels it needed were not looked for in the cache"
        )


class Interrupted(Fa4PrecompileError):
    """The command line was interrupted, by SIGINT or SIGTERM. What was published stays."""

    exit_code = 130

    def __str__(self) -> str:
        return "interrupted; what is done is kept, and the same command goes on from there"

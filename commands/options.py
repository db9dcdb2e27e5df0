"""Options and arguments that several commands have. Imports little but click: `--help` is to be quick."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from ..cache.fit import Fit

TIME_LIMIT_S = 900
"""How long a kernel may compile, if nothing else is said."""

EACH_ARCH = "each"
"""What `--require-canary` means without a value."""

Command = TypeVar("Command", bound=Callable[..., Any])


def _once(_context: click.Context, option: click.Parameter, values: tuple[Any, ...]) -> Any:
    """Return the one value of an option; of two, none is meant more than the other."""
    if len(values) > 1:
        raise click.BadParameter(f"is given {len(values)} times, and takes one value", param=option)
    return values[0] if values else None


def option(*names: str, **settings: Any) -> Callable[[Command], Command]:
    """Return a decorator for an option with one value."""
    return click.option(*names, multiple=True, callback=_once, **settings)


class Folder(click.Path):
    """A path, but for the empty one: that of a shell's unset variable would be the working folder.

    Whether it can be read is for the command to find out, which knows what that means.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(path_type=Path, readable=False, **settings)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        if value == "":
            self.fail("the name is empty; is a variable not set?", param, ctx)
        return super().convert(value, param, ctx)


class ReportPlace(Folder):
    """Where reports are: a file, a folder with a `/` behind its name, or a pattern of files. An absolute path."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path, in which a folder's slash is not lost. Raises `UsageError` for no such pattern."""
        from ..loader.report_files import report_path

        super().convert(value, param, ctx)
        return report_path(str(value))


class Quantity(click.ParamType):  # type: ignore[type-arg]  # older versions of click have none
    """A number with a unit: a size, an age. `units` says what one of each is worth."""

    def __init__(self, name: str, units: Mapping[str, int], example: str) -> None:
        self.name = name
        self._units = units
        self._example = example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the quantity in bytes, or seconds."""
        match = _QUANTITY.fullmatch(value)
        unit = self._units.get(match["unit"]) if match else None
        if match is None or unit is None:
            units = ", ".join(filter(None, self._units))
            self.fail(f"{value!r} is no {self.name} such as {self._example}; units: {units}", param, ctx)
        return round(float(match["number"]) * unit)


class Part(click.ParamType):  # type: ignore[type-arg]  # older versions of click have none
    """One of so many parts, `3/8`: its number from 1 on, and how many there are."""

    name = "shard"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Return both numbers."""
        match = _PART.fullmatch(value)
        number, of = (int(match["number"]), int(match["of"])) if match else (0, 0)
        if not 1 <= number <= of <= _MOST_PARTS:
            self.fail(f"{value!r} is no K/N such as 3/8, with K from 1 to N and N up to {_MOST_PARTS:,}", param, ctx)
        return number, of


class Arch(click.ParamType):  # type: ignore[type-arg]  # older versions of click have none
    """An arch, or each: `EACH_ARCH`. What stands behind the option is its value, and it may be meant as SPEC."""

    name = "arch"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the arch."""
        if value != EACH_ARCH and not value.startswith("sm_"):
            self.fail(f"{value!r} is no arch such as sm_100a; write SPEC first, or `--require-canary=ARCH`", param, ctx)
        return str(value)


_MOST_PARTS = 10_000
_PART = re.compile(r"(?P<number>[0-9]{1,5})/(?P<of>[0-9]{1,5})", re.ASCII)
_QUANTITY = re.compile(r"(?P<number>[0-9]{1,15}(\.[0-9]{1,9})?) ?(?P<unit>[A-Za-z]*)", re.ASCII)

SIZE_UNITS = MappingProxyType(
    {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
    | {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
)
AGE_UNITS = MappingProxyType({"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400})


def option_cache(command: Command) -> Command:
    """Add `--cache`."""
    return option(
        "--cache",
        "cache",
        type=Folder(),
        metavar="DIR",
        help="Cache directory. Default: the first of $FA4_PRECOMPILE_CACHE, else the user's cache folder.",
    )(command)


def option_trust(command: Command) -> Command:
    """Add `--allow-untrusted`."""
    return click.option(
        "--allow-untrusted", is_flag=True, help="Read a cache that others can write. Its kernels run as you."
    )(command)


def option_from(command: Command) -> Command:
    """Add `--from`, which can be given several times."""
    return click.option(
        "--from",
        "places",
        multiple=True,
        metavar="PLACE",
        help="Take kernels that are built already from there: a cache directory, a pack, a URL; can be given several "
        "times. `--expect` and `--trust-key` are about these.",
    )(command)


def option_vouchers(command: Command) -> Command:
    """Add `--expect` and `--trust-key`, each of which can be given several times."""
    command = click.option(
        "--trust-key",
        "trust_keys",
        type=Folder(dir_okay=False),
        multiple=True,
        metavar="FILE",
        help="PEM file of a public key: only a cache that is sealed and signed by it is taken, whoever owns it; can be "
        "given several times. Default: $FA4_PRECOMPILE_TRUST_KEY.",
    )(command)
    return click.option(
        "--expect",
        multiple=True,
        metavar="FINGERPRINT",
        help="Only a cache with this fingerprint is taken, sealed; can be given several times. "
        "Default: $FA4_PRECOMPILE_EXPECT.",
    )(command)


def option_json(command: Command) -> Command:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")(command)


def option_target(command: Command) -> Command:
    """Add `--target`."""
    return option(
        "--target",
        "target_name",
        metavar="NAME",
        shell_complete=offer("targets"),
        help="Device profile (see `targets`). Default: all that the spec names.",
    )(command)


def option_module(command: Command) -> Command:
    """Add `--module`, which can be given several times."""
    return click.option(
        "--module",
        "modules",
        multiple=True,
        metavar="PACKAGE",
        help="A package that carries the provider's code, or its folder; can be given several times. Default: "
        "$FA4_PRECOMPILE_MODULE, else all that there are.",
    )(command)


def option_toolchain(command: Command) -> Command:
    """Add `--toolchain`."""
    return option(
        "--toolchain",
        type=click.Choice([fit.value for fit in Fit]),
        help="`exact`: only kernels that were built with the DSL, the traced sources and the code-generation variables "
        "that are here; `compatible`: all that run here. Default: $FA4_PRECOMPILE_TOOLCHAIN, else exact where nothing "
        "may be compiled.",
    )(command)


def option_excluded(command: Command) -> Command:
    """Add `--fail-on-excluded`."""
    return click.option(
        "--fail-on-excluded", is_flag=True, help="End with 1 if the provider does not take all calls of SPEC."
    )(command)


def option_canary(command: Command) -> Command:
    """Add `--require-canary`, with or without an arch."""
    return option(
        "--require-canary",
        "canary",
        is_flag=False,
        flag_value=EACH_ARCH,
        type=Arch(),
        metavar="[=ARCH]",
        help="End with 1 unless each kernel of SPEC has run well on a GPU, as its last certificate says; with "
        "`=sm_100a` just those for that arch.",
    )(command)


def option_known_bad(command: Command) -> Command:
    """Add `--known-bad`."""
    return option(
        "--known-bad",
        "known_bad",
        type=Folder(dir_okay=False),
        metavar="FILE",
        help="A list of known-bad toolchains of your own, which adds to the shipped one, or switches parts of it off. "
        "Default: $FA4_PRECOMPILE_KNOWN_BAD.",
    )(command)


def option_shard(command: Command) -> Command:
    """Add `--shard`."""
    return option(
        "--shard",
        type=Part(),
        metavar="K/N",
        help="Build just the K-th of N parts of SPEC: each kernel belongs to one. `merge` puts them together.",
    )(command)


def option_jobs(command: Command) -> Command:
    """Add `--jobs`."""
    return option(
        "-j",
        "--jobs",
        type=click.IntRange(min=1),
        metavar="N",
        help="Processes at a time. Default: what cores and free memory allow (1.5 GB each).",
    )(command)


def offer(kind: str) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Return what a shell is offered for a parameter: a function of `commands.complete`, imported when it is asked."""

    def offer(context: click.Context, _parameter: click.Parameter, typed: str) -> list[CompletionItem]:
        from . import complete

        found: list[CompletionItem] = getattr(complete, kind)(context, typed)
        return found

    return offer


argument_spec = click.argument("spec", metavar="SPEC", shell_complete=offer("specs"))
"""The argument that names a spec."""

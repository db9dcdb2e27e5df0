"""The seam: what the rest of the project knows of a kernel library.

A `Provider` is what is known of one without importing it; a `LiveProvider` is one that was imported, in the process
that asks it for kernels and compiles them. Nobody goes around them (tests/test_layers.py).

What a library must do for it: keep what it compiled in mappings (`Slot`), one a kind of kernel, and compile by calling
`compile` of the module `cutlass.cute`, found there when it is called, with a kernel object first.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Protocol

from ..cache.record import Selection
from ..cache.target import Target
from ..errors import MachineError, UsageError
from .packages import package_folder
from .recognizer import Recognizer
from .seen import SeenCall
from .slots import Slot

if TYPE_CHECKING:  # what a build needs; a job must not wait for it
    from .axes import Axis
    from .call import BlockSizes, Call, Matrix, Range, Select, Variant
    from .disk import DiskCache
    from .dsl.live import Dsl
    from .layers import Attention, Axes, Framework, Use
    from .real import RealCalls


class Provider(Protocol):
    """A kernel library written in the CuTe DSL, installed or not.

    Cheap to make, frozen, equal and hashed by value, and can be pickled.

    What has a body here is what most libraries want; a provider that says it is one (`class Mine(Provider)`) has it.
    """

    @property
    def name(self) -> str:
        """What specs and toolchains call it."""

    @property
    def title(self) -> str:
        """What messages to people call it."""

    @property
    def package(self) -> str:
        """The importable package that its code is in; the source is part of a toolchain's identity."""

    @property
    def folder(self) -> Path | None:
        """Where its code is, imported or not; None if it is not installed."""
        return package_folder(self.package)

    @property
    def signs(self) -> Sequence[str]:
        """Files of its package by which it is recognised under another name; nothing if there is no such package."""
        return ()

    @property
    def passing(self) -> str:
        """The package, if whoever loads it from a folder gives it its name: keys are without it."""
        return ""

    @property
    def meaning(self) -> str:
        """A version: it changes when the same axes come to other calls, which an old build must not vouch for."""

    @property
    def sms_variable(self) -> str:
        """The variable that tells a job's number of SMs where there is no GPU."""

    @property
    def is_default(self) -> bool:
        """Whether a spec that names no `module` means this package."""
        return True

    @property
    def traced(self) -> Sequence[str]:
        """Other packages whose source is traced into its kernels."""
        return ()

    @property
    def inner(self) -> Sequence[str]:
        """Libraries that are traced into its kernels and that its package may have a copy of, as a package in it."""
        return ()

    @property
    def idle(self) -> Sequence[str]:
        """Packages that its modules import and no call of its functions uses: for its tests, say."""
        return ()

    @property
    def beside(self) -> Sequence[str]:
        """Modules outside its package that have compile caches for its kernels; their source is part of its own."""
        return ()

    @property
    def beside_the_call(self) -> Sequence[str]:
        """Axes that are no part of a job's call: demands, settings, sizes that hardly matter."""
        return ("tile", "cluster_size", "backend")

    def under(self, package: str) -> Provider:
        """Return the provider of a package that carries its code: under another name, or in a folder that is named.

        Raises `UsageError`.
        """
        raise UsageError(f"`{package}` does not carry the code of {self.name}", "take `module` out")

    @property
    def distribution(self) -> str:
        """What it is installed by; its name, if nothing else is known."""
        return self.name

    def at(self, folder: Path, package: str) -> Provider:
        """Return the provider of a package that was loaded from a folder, by whatever name. Raises `UsageError`."""
        raise UsageError(f"`{folder}` does not carry the code of {self.name}", "name a package")

    def version(self) -> str:
        """Return its version, for people. Raises `MachineError` if it is not installed."""

    # What a spec can say

    @property
    def axes(self) -> Mapping[str, Axis]:
        """Its axes by name, in the order in which a spec's lists multiply."""

    def variant(self, point: Mapping[str, object]) -> Variant:
        """Return the call at a point, values by axis; what is not named is at its default. Raises `UsageError`."""

    def ranges(self, variant: Variant) -> Mapping[str, Range]:
        """Return the sizes that a variant leaves open, by name; nothing for what is one call."""
        return {}

    def sized(self, variant: Variant, sizes: Mapping[str, int]) -> Variant:
        """Return the call of a variant with open sizes at these. Raises `UsageError` for what no call can have."""
        raise UsageError(f"{self.name} leaves no size open")

    def others(self, call: Call, number: int, seed: int) -> Sequence[Call]:
        """Return about so many calls, by chance, that differ from one in what should reach no kernel of it."""
        return ()

    def perturbed(self, calls: Sequence[Call], number: int, seed: int) -> Sequence[tuple[str, Call, Call]]:
        """Return so many of some calls, by chance, each with one that differs in an argument, after its name."""
        return ()

    def matrix(self, select: Select) -> Matrix:
        """Ask about all that it supports. Raises `UsageError` if it has no such table."""
        raise UsageError(f"{self.name} has no table of all that it supports", "plan a spec")

    def block_sizes(self, select: Select, variant: Variant, sparse: bool) -> BlockSizes:
        """Ask for the block sizes that masks for a call need. Raises `UsageError` if it takes no such call."""
        raise UsageError(f"{self.name} takes no masks")

    # Where kernels are built

    def pinned_environment(self, target: Target) -> Mapping[str, str | None]:
        """Return the variables that pin it to a target before it is imported; None unsets one, `*` is any ending."""

    def calls(self, variant: Variant) -> Sequence[Call]:
        """Return the ways to make a call: as it stands, then with switches for its demands, the fewest first."""

    def expected_cost(self, variant: Variant, slot: str) -> tuple[int, ...]:
        """Return what orders kernels by the time that they take to compile."""
        return ()

    def go_live(self, target: Target) -> LiveProvider:
        """Import it, in a process with its `pinned_environment`."""

    # Where kernels are tried on a GPU

    def real_calls(self) -> RealCalls:
        """Import it, in a process with a GPU and a loader. Raises `MachineError` if its calls can't be made there."""
        raise MachineError(f"it is not known how calls of {self.name} are made with values", "run your job instead")

    # Where jobs have no loader

    @property
    def disk_cache(self) -> DiskCache | None:
        """How it keeps what it compiled on disk by itself; None if it does not, or it is not known how."""
        return None

    # Where kernels run, and after `go_live`

    def slots_of(self, module: ModuleType) -> Sequence[Slot]:
        """Return the compile caches that a module of its package, or beside it, has."""

    def is_interface(self, module: ModuleType) -> bool:
        """Return whether an imported module is by what its package is recognised, whatever that is called."""
        return False

    def unfound(self, module: ModuleType) -> Sequence[str]:
        """Return the compile caches that a module's source has and `slots_of` does not find: `file.py:123: what`.

        May take a parser: for builds, and the start of a strict job.
        """
        return ()

    def launches_by_name(self, slot: str) -> bool:
        """Return whether it gives the kernels of a slot arguments by name, which a loaded one takes by position.

        May take a parser: for who makes kernels.
        """
        return False

    def named_key(self, slot: str, key: object) -> Mapping[str, object]:
        """Return a key's values by the names that its source has for the positions; for people only."""

    def is_variable(self, position: str) -> bool:
        """Return whether a position's name is that of a variable which the job sets (`FA_LOG_LEVEL`)."""
        return False

    def selection(self, kernel: object, key_fields: Mapping[str, object]) -> Selection:
        """Return what it chose, read from the kernel object that it hands to its compiler."""

    def observe(self, frame: FrameType | None) -> Mapping[str, object] | None:
        """Return the axes of the call that reached a frame of its code, None if not all of the call can be told."""

    def seen(self, frame: FrameType | None, environment: Mapping[str, str]) -> SeenCall:
        """Return the call that reached a frame of its code, in a job with these variables, as far as a spec says it."""
        del environment
        return SeenCall(self.observe(frame))

    def kin(self, variant: Variant) -> Sequence[Variant]:
        """Return calls that may look up what one that a job made does, and are shorter to say, the shortest first."""
        del variant
        return ()

    def widened(self, variants: Sequence[Variant]) -> Mapping[str, object]:
        """Return the axes, as JSON, that leave the sizes of calls open around those that some have.

        Raises `UsageError` if it leaves none open.
        """
        raise UsageError(f"{self.name} leaves no size open", "do without `--closure`")

    def calls_of(self, attention: Attention, use: Use) -> Sequence[Axes]:
        """Return the calls that a job makes for attention layers of a model, in whole points of its axes.

        Raises `UsageError` if there are no such calls of it, or for what can't be meant.
        """
        raise UsageError(f"{self.name} has no calls for attention layers", "write a spec of its axes")

    def carried_by(self, framework: Framework) -> Provider:
        """Return the provider of the package that a framework calls: the framework's own copy, or this one."""
        del framework
        return self

    def instead(self, call: Axes) -> Sequence[Axes]:
        """Return calls that compute what one does, by a job that says or sets more, for where it is refused."""
        del call
        return ()

    def entry_words(self, axes: Mapping[str, Sequence[object]]) -> Sequence[str]:
        """Return the words that name an entry with these values of its axes, as JSON: the most telling first."""
        del axes
        return ()

    def fake(self, target: Target) -> None:
        """Let calls be made with no GPU, as on a target. Before its package is imported.

        Raises `UsageError` if its calls can't be made so.
        """
        raise UsageError(f"calls of {self.name} are not made without a GPU", "record a job on a machine that has one")

    def fake_calls(self, module: ModuleType) -> AbstractContextManager[None]:
        """Make what a module launches kernels by take tensors of the CPU, which it gives back without their values."""
        del module
        return nullcontext()

    def spec_lines(self, frame: FrameType | None, environment: Mapping[str, str]) -> str:
        """Return the entry of a spec that enumerates the call; or a comment, if no axis says it."""

    def recognizer(self, tell_apart: bool = True) -> Recognizer:
        """Return what knows the functions of the user's in its keys, for one process.

        With `tell_apart`, two functions that the library's key does not tell apart have two keys in this process.
        """
        del tell_apart
        return Recognizer()

    def job_switches(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return the variables by which a job chooses other kernels."""
        return {}


class LiveProvider(Protocol):
    """A provider that was imported and pinned to a target. Lives in the fork server and its children only."""

    @property
    def dsl(self) -> Dsl:
        """The DSL that compiles its kernels."""

    @property
    def recognizer(self) -> Recognizer:
        """What knows the functions in its keys; it does not tell them apart for the library, as nothing is kept."""
        return Recognizer()

    def call(self, call: Call) -> None:
        """Make a call with tensors that have no memory."""

    def first_call(self) -> Variant:
        """Return a call that imports what the first one imports, once for all children."""

    def refusal(self, error: Exception) -> str | None:
        """Return the provider's word on the call, if an error that `call` raised is that."""

    def pattern(self, variant: Variant) -> Hashable:
        """Return what is equal for calls that can differ in their keys, but not in which sizes reach other ones."""
        return variant

    def looking_only(self) -> AbstractContextManager[None]:
        """Save the provider what it does for its compiler only, while nothing is compiled."""
        return nullcontext()

    def main_slot(self, variant: Variant) -> str:
        """Return the slot that a variant's demands are about."""

"""The provider `flash-attn-4`: FlashAttention-4 of Tri Dao and others, and packages that carry its code.

What is known of it without importing it; a job imports this module, so what only a build needs is imported late.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, ClassVar

from ...cache.record import Selection
from ...cache.target import Target
from ..loaded import plain_names
from ..packages import owner, package_folder, version
from ..slots import Slot
from . import keys, slots, switches
from .beside import beside
from .placed import name_of
from .selection import read_selection

if TYPE_CHECKING:
    from ..axes import Axis
    from ..call import BlockSizes, Call, Matrix, Range, Select, Variant
    from ..disk import DiskCache
    from ..layers import Attention, Axes, Framework, Use
    from ..protocol import LiveProvider
    from ..real import RealCalls
    from ..recognizer import Recognizer
    from ..seen import SeenCall

_PACKAGE = "flash_attn.cute"
_OF_VLLM = "vllm.vllm_flash_attn.cute"
_DISTRIBUTION = "flash-attn-4"
_QUACK = "quack"
_IDLE = ("cuda", "einops", "triton")


@dataclass(frozen=True)
class FlashAttn4:  # no `(Provider)`: a job would import the protocol for it; the registry's type says that it is one
    """FA4 as a `Provider`; `package` is another than its own for a package of its lineage.

    `place` is the folder of one that is on no path.
    """

    package: str = _PACKAGE
    place: str = ""

    name: ClassVar[str] = "flash-attn-4"
    title: ClassVar[str] = "FlashAttention"
    inner: ClassVar[tuple[str, ...]] = (_QUACK,)
    # A test pins it together with a plan.
    meaning: ClassVar[str] = "fa4-precompile/spec/5"
    sms_variable: ClassVar[str] = switches.SMS
    # Demands, settings, and sizes that most kernels don't depend on.
    beside_the_call: ClassVar[tuple[str, ...]] = ("tile", "cluster_size", "backend", "job_env", "shape")

    signs: ClassVar[tuple[str, ...]] = ("interface.py", "flash_fwd_sm100.py")

    @property
    def is_default(self) -> bool:
        """Whether it is the package that is called so on PyPI."""
        return self.package == _PACKAGE

    @property
    def passing(self) -> str:
        """The name that a folder was loaded by."""
        return self.package if self.place else ""

    @property
    def beside(self) -> Sequence[str]:
        """Modules next to the package that compile its kernels into caches of their own."""
        return beside(self.package)

    @property
    def folder(self) -> Path | None:
        """Where its code is."""
        return Path(self.place) if self.place else package_folder(self.package)

    @property
    def traced(self) -> Sequence[str]:
        """The package quack, unless this one has its own inside."""
        folder = None if self.is_default else self.folder
        return () if folder is not None and os.path.isdir(folder / _QUACK) else (_QUACK,)

    @property
    def idle(self) -> Sequence[str]:
        """What FA4 imports for annotations, references to compare kernels with, and printing their code.

        A package of its lineage can do more with them, so of these it is those that are not installed.
        """
        return [name for name in _IDLE if self.is_default or package_folder(name) is None]

    def under(self, package: str) -> FlashAttn4:
        """Return the provider for a package of FA4's lineage: of another name, or in a folder, which has a `/`."""
        if os.sep not in package:
            return FlashAttn4(package)
        folder = os.path.abspath(package)
        return FlashAttn4(name_of(Path(folder)), folder)

    def at(self, folder: Path, package: str) -> FlashAttn4:
        """Return the provider for a folder with FA4's code, loaded by some name."""
        return FlashAttn4(package, str(folder))

    def version(self) -> str:
        """Return the version of the distribution that the package is from."""
        distribution = self._owner()
        if distribution is None and not self.is_default and self.folder:
            return "unknown"  # a folder on the path; its source is what identifies it
        return version(distribution or self.distribution)

    @property
    def distribution(self) -> str:
        """The distribution that the package is from: `tokenspeed-fa4` has `flash_attn.cute`, too."""
        return self._owner() or (_DISTRIBUTION if self.is_default else self.package.split(".", maxsplit=1)[0])

    def _owner(self) -> str | None:
        return None if self.place else owner(self.package, "interface.py")

    @property
    def axes(self) -> Mapping[str, Axis]:
        """The axes of `docs/reference/specs.md`."""
        from .axes import AXES

        return AXES

    def variant(self, point: Mapping[str, object]) -> Variant:
        """Return the call at a point."""
        from .axes import make_variant

        return make_variant(point)

    def ranges(self, variant: Variant) -> Mapping[str, Range]:
        """Return the sizes that `shapes: closure` leaves open."""
        from .shapes import ranges
        from .variant import own

        return ranges(own(variant))

    def sized(self, variant: Variant, sizes: Mapping[str, int]) -> Variant:
        """Return the call whose `shape` has these sizes."""
        from .shapes import sized
        from .variant import own

        return sized(own(variant), sizes)

    def others(self, call: Call, number: int, seed: int) -> Sequence[Call]:
        """Return calls of other sizes, softmax scales, window widths, page sizes and layouts of Q, K and V."""
        from .relatives import others

        return others(call, number, seed)

    def perturbed(self, calls: Sequence[Call], number: int, seed: int) -> Sequence[tuple[str, Call, Call]]:
        """Return calls with another value on one axis: a usual one, or one of the other calls."""
        from .relatives import perturbed

        return perturbed(calls, number, seed)

    def matrix(self, select: Select) -> Matrix:
        """Ask about pass, head_dim, block sparsity, cluster_size and backend."""
        from .matrix import matrix, render

        return render(matrix(select))

    def block_sizes(self, select: Select, variant: Variant, sparse: bool) -> BlockSizes:
        """Ask for the smallest blocks that are taken, or for tiles if the call is dense."""
        from .blocks import block_sizes
        from .variant import own

        return block_sizes(select, own(variant), sparse)

    def pinned_environment(self, target: Target) -> Mapping[str, str | None]:
        """Return FA4's and quack's own variables."""
        return switches.pinned_environment(target)

    def calls(self, variant: Variant) -> Sequence[Call]:
        """Return the call, and the call with FA4's switches."""
        return switches.calls(variant)

    def expected_cost(self, variant: Variant, slot: str) -> tuple[int, ...]:
        """Order by pass and head_dim: the kernel that the call is about takes longest, then its forward's."""
        from .variant import own

        call = own(variant)
        return int(slot == call.pass_), int(slot == "fwd"), call.head_dim * (2 if call.pass_ == "bwd" else 1)

    def go_live(self, target: Target) -> LiveProvider:
        """Import torch, the DSL and FA4."""
        from .live import LiveFlashAttn4

        return LiveFlashAttn4(target, self.package, Path(self.place) if self.place else None)

    def real_calls(self) -> RealCalls:
        """Import torch and FA4, with the DSL or with what stands in for it."""
        from .real import RealFlashAttn4

        return RealFlashAttn4(self.package, Path(self.place) if self.place else None)

    @property
    def disk_cache(self) -> DiskCache | None:
        """FA4's own; packages of its lineage have it in other places, under other variables."""
        from .disk_cache import FlashAttentionDiskCache

        return FlashAttentionDiskCache() if self.is_default else None

    def slots_of(self, module: ModuleType) -> Sequence[Slot]:
        """Return the compile caches of a module: of its functions, of its own, and those that it fills."""
        return slots.slots_of(module)

    def is_interface(self, module: ModuleType) -> bool:
        """Return whether a module defines FA4's forward and keeps what it compiles: its lineage under any name."""
        names = plain_names(module)
        name, forward = str(names.get("__name__")), names.get("_flash_attn_fwd")
        is_own = getattr(forward, "__module__", None) == name
        return is_own and name.endswith(".interface") and bool(slots.slots_of(module))

    def unfound(self, module: ModuleType) -> Sequence[str]:
        """Return the places where a module keeps what it compiles and `slots_of` finds nothing. Takes a parser."""
        from .declared import unfound

        return unfound(module)

    def launches_by_name(self, slot: str) -> bool:
        """Return whether the source launches a slot's kernels by `X[key](q=q)`. Takes a parser."""
        from .launches import launches_by_name

        return launches_by_name((self.package, *self.beside), slot)

    def named_key(self, slot: str, key: object) -> Mapping[str, object]:
        """Return a key's values by the expressions that FA4's source builds it from, or numbers if none fits."""
        return keys.named_key((self.package, *self.beside), slot, key)

    def is_variable(self, position: str) -> bool:
        """Return whether FA4's source has a getter in that place: `get_fa_log_level()` is named `FA_LOG_LEVEL`."""
        return position.isupper()

    def selection(self, kernel: object, key_fields: Mapping[str, object]) -> Selection:
        """Return tiles, cluster size and backend from the attributes of FA4's kernel object, else from the key."""
        return read_selection(kernel, key_fields, self.package)

    def observe(self, frame: FrameType | None) -> Mapping[str, object] | None:
        """Return the axes of the call of the innermost function with Q, K and V."""
        from .observed import observe

        variant = observe(frame, self.package)
        return None if variant is None else variant.render()

    def seen(self, frame: FrameType | None, environment: Mapping[str, str]) -> SeenCall:
        """Return the axes of the same call, and what of it none says."""
        from ..seen import SeenCall
        from .observed import seen

        call = seen(frame, self.package, self.job_switches(environment))
        if call is None:
            return SeenCall(None)
        return SeenCall(None if call.unsaid else call.variant.render(), [*call.unsaid, *call.unnamed])

    def kin(self, variant: Variant) -> Sequence[Variant]:
        """Return the call at other sizes, as a forward alone, and with what its own arguments don't show."""
        from .kin import kin
        from .variant import own

        return kin(own(variant))

    def widened(self, variants: Sequence[Variant]) -> Mapping[str, object]:
        """Return `shapes: closure`, and ranges of sizes."""
        from .kin import widened
        from .variant import own

        return widened([own(one) for one in variants])

    def calls_of(self, attention: Attention, use: Use) -> Sequence[Axes]:
        """Return the calls of the public functions, with the heads of one GPU."""
        from .layers import calls_of

        return calls_of(attention, use)

    def carried_by(self, framework: Framework) -> FlashAttn4:
        """Return that of vLLM's copy for vLLM."""
        return self.under(_OF_VLLM) if framework == "vllm" else self

    def instead(self, call: Axes) -> Sequence[Axes]:
        """Return the call with the kernel for all head_dims, by a switch."""
        from .layers import instead

        return instead(call)

    def entry_words(self, axes: Mapping[str, Sequence[object]]) -> Sequence[str]:
        """Return words for an entry: what its calls are for, and what is special of them."""
        from .kin import entry_words

        return entry_words(axes)

    def fake(self, target: Target) -> None:
        """Let torch answer for a target: FA4's own variables are pinned before."""
        from .faked import answer_as

        answer_as(target)

    def fake_calls(self, module: ModuleType) -> AbstractContextManager[None]:
        """Make the functions with a compile cache take tensors of the CPU."""
        from .faked import faked_calls

        return faked_calls(module, self.slots_of(module))

    def spec_lines(self, frame: FrameType | None, environment: Mapping[str, str]) -> str:
        """Return the entry of the same call."""
        from .observed import spec_lines

        return spec_lines(frame, self.package, self.job_switches(environment))

    def recognizer(self, tell_apart: bool = True) -> Recognizer:
        """Return what knows `mask_mod`s and `score_mod`s."""
        from .recognizer import FlashRecognizer

        return FlashRecognizer(self.package, self.passing, tell_apart)

    def job_switches(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return the variables that begin as FA4's do and that a job has set."""
        return switches.job_switches(environment)

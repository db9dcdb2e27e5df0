"""The provider `toy-kernels`: what is known of the library without importing it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import FrameType, MappingProxyType, ModuleType
from typing import TYPE_CHECKING, ClassVar

from fa4_precompile.cache.record import Selection
from fa4_precompile.cache.target import Target
from fa4_precompile.providers.call import Call
from fa4_precompile.providers.call import Variant as AnyVariant
from fa4_precompile.providers.packages import version
from fa4_precompile.providers.protocol import LiveProvider, Provider
from fa4_precompile.providers.slots import Slot

from .variant import own

if TYPE_CHECKING:
    from fa4_precompile.providers.axes import Axis
    from fa4_precompile.providers.real import RealCalls

SLOTS: Mapping[str, str] = MappingProxyType({"toy_kernels.scaling": "scale", "toy_kernels.adding": "add"})
"""The name of the slot that each module keeps: its variable `kernels`."""

_KEY = ("dtype", "width", "tile")
_WIDE = "TOY_WIDE"


@dataclass(frozen=True)
class ToyKernels(Provider):
    """The library as a `Provider`."""

    name: ClassVar[str] = "toy-kernels"
    title: ClassVar[str] = "Toy Kernels"
    package: ClassVar[str] = "toy_kernels"
    meaning: ClassVar[str] = "toy-kernels/1"
    sms_variable: ClassVar[str] = "TOY_SMS"  # which the library itself does not read

    def version(self) -> str:
        """Return the version of the distribution."""
        return version(self.name)

    @property
    def axes(self) -> Mapping[str, Axis]:
        """The four axes."""
        from .axes import AXES

        return AXES

    def variant(self, point: Mapping[str, object]) -> AnyVariant:
        """Return the call at a point."""
        from .axes import AXES
        from .variant import Variant

        return Variant(**{name: point.get(name, axis.default) for name, axis in AXES.items()})  # type: ignore[arg-type]

    def others(self, call: Call, number: int, seed: int) -> Sequence[Call]:
        """Return calls of other numbers of rows, which are in no key; there are no more than three."""
        return [replace(call, runtime=(("rows", rows),)) for rows in (1, 1000, 4096)]

    def perturbed(self, calls: Sequence[Call], number: int, seed: int) -> Sequence[tuple[str, Call, Call]]:
        """Return each call with twice its width."""
        wide = [replace(call, variant=replace(own(call.variant), width=2 * own(call.variant).width)) for call in calls]
        return [("width", call, other) for call, other in zip(calls, wide, strict=True)][:number]

    def pinned_environment(self, target: Target) -> Mapping[str, str | None]:
        """Return the library's own variables, all unset."""
        return {"TOY_*": None}

    def calls(self, variant: AnyVariant) -> Sequence[Call]:
        """Return the call, and for a demanded tile the call with the library's one switch."""
        return [Call(variant), Call(variant, ((_WIDE, "1"),))] if variant.demands else [Call(variant)]

    def go_live(self, target: Target) -> LiveProvider:
        """Import torch, the DSL and the library."""
        from .live import LiveToyKernels

        return LiveToyKernels(target)

    def real_calls(self) -> RealCalls:
        """Return calls that are none: there is no GPU where the tests run."""
        from .real import FakeRealToyKernels

        return FakeRealToyKernels()

    def slots_of(self, module: ModuleType) -> Sequence[Slot]:
        """Return the one cache of a module that has one."""
        name = SLOTS.get(module.__name__)
        return [Slot(name, module, "kernels")] if name is not None else []

    def named_key(self, slot: str, key: object) -> Mapping[str, object]:
        """Return a key's values by the library's words."""
        assert isinstance(key, tuple)
        return dict(zip(_KEY, key, strict=True))

    def selection(self, kernel: object, key_fields: Mapping[str, object]) -> Selection:
        """Return the tile that the kernel object was made with."""
        tile = getattr(kernel, "tile", None)
        assert isinstance(tile, tuple)
        return Selection(type(kernel).__name__, backend="generic", cluster_size=1, tiles={"main": tile})

    def observe(self, frame: FrameType | None) -> Mapping[str, object] | None:
        """Return the axes of the call, but for the tile."""
        from .observed import observe

        variant = observe(frame)
        return None if variant is None else variant.render()

    def spec_lines(self, frame: FrameType | None, environment: Mapping[str, str]) -> str:
        """Return the entry of the call; it demands the tile if the job's switch has chosen it."""
        from .observed import spec_lines

        return spec_lines(frame, demand_tile=bool(self.job_switches(environment)))

    def job_switches(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return the switch, if the job has set it."""
        return {_WIDE: environment[_WIDE]} if environment.get(_WIDE) else {}


PROVIDER = ToyKernels()

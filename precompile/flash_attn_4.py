"""The provider `flash-attn-4`: FlashAttention-4 of Tri Dao and others, as it is on PyPI.

Nothing here says what FA4 supports or selects: the calls go to FA4's public functions, and what it refuses, chooses and
looks up is read off. What is restated is how to call it, and the names of its switches.

Imports torch, the DSL and FA4 when a `FlashAttn4` is made, which is in the fork server only.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import itertools
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..cache.record import Selection
from ..cache.slots import SlotOwner, find_slots, loaded_modules, named_key
from ..cache.target import Target
from .device_facts import DeviceFacts
from .fa4_arguments import CallBuilder
from .provider import Call
from .selection import read_selection
from .variant import Variant

# FA4's own switches. A build takes them from the spec's demands, never from the builder's environment: the job would
# have to be told.
_DISABLE_2CTA = "FA_DISABLE_2CTA"
_HD256_GENERIC_BWD = "FLASH_ATTENTION_HD256_GENERIC_BWD"
_BWD_TILE_N = "FLASH_ATTENTION_BWD_TILE_N"
# All that the builder's environment says to FA4, quack and the DSL: log levels that get into keys, dumps of files,
# other caches, other schedulers. What is meant to be there is in the toolchain's allow-list or in the spec. And what it
# says to our own loader, which torch would start here, too.
_UNSET = ("CUTE_DSL_*", "FA_*", "FA4_PRECOMPILE_*", "FLASH_ATTENTION_*", "QUACK_*")
# What of it says nothing about kernels: the target's, and FA4's own cache.
_NO_SWITCHES = ("FLASH_ATTENTION_ARCH", "FLASH_ATTENTION_NUM_SMS", "FLASH_ATTENTION_CUTE_DSL_CACHE")
_VARIABLE = re.compile(r"\b(?:FA|FLASH_ATTENTION)_\w+")
_CONVERT = "to_cute_tensor"


def fork_server_environment(target: Target, switches: Mapping[str, str]) -> dict[str, str | None]:
    """Return the variables that pin FA4, quack and the DSL to a target before they are imported.

    None unsets one, and `*` stands for any ending.
    """
    return {
        **dict.fromkeys(_UNSET),
        "CUDA_VISIBLE_DEVICES": "",
        "CUTE_DSL_ARCH": target.arch,
        "CUTE_DSL_DISABLE_FILE_CACHING": "1",  # its cache below /tmp is not verified
        # FA4 compiles for TVM-FFI anyway, but hands over the semaphores of a deterministic backward in a way that needs
        # a GPU; with this they go the way of the other tensors.
        "CUTE_DSL_ENABLE_TVM_FFI": "1",
        "FLASH_ATTENTION_ARCH": f"sm_{target.sm}",
        "FLASH_ATTENTION_NUM_SMS": str(target.sms),
        "QUACK_ARCH": f"sm_{target.sm}",
        **switches,
    }


def plain_call(variant: Variant) -> Call:
    """Return the call as the variant says it, with no switch for its demands."""
    return Call(variant, environment=variant.job_env)


def switched_calls(variant: Variant) -> list[Call]:
    """Return the calls with FA4's switches for what the variant demands, the fewest switches first."""
    switches = {}
    if variant.cluster_size == 1:
        switches[_DISABLE_2CTA] = "1"
    if variant.backend == "generic" and variant.pass_ == "bwd":
        switches[_HD256_GENERIC_BWD] = "1"
    if variant.tile is not None and variant.pass_ == "bwd" and variant.tile[1] == 64:
        switches[_BWD_TILE_N] = "64"
    pass_tile = variant.tile is not None and variant.pass_ == "fwd"
    fewest = 0 if pass_tile else 1
    sets = [chosen for n in range(fewest, len(switches) + 1) for chosen in itertools.combinations(switches.items(), n)]
    own = dict(variant.job_env)
    return [Call(variant, pass_tile, tuple(sorted((own | dict(chosen)).items()))) for chosen in sets]


def job_switches(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of FA4's that a job has set, but for those that say which GPU, or where its own cache is."""
    return {
        name: value
        for name, value in sorted(environment.items())
        if name.startswith(("FA_", "FLASH_ATTENTION_")) and not name.startswith(_NO_SWITCHES) and value
    }


class FlashAttn4:
    """FA4, imported in a process whose environment is that of `fork_server_environment`."""

    def __init__(self, target: Target, package: str) -> None:
        import torch
        from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

        # FA4 reads the job's CUDA version from torch; a CPU build of torch has none.
        torch.version.cuda = f"{target.cuda}.0"
        import cutlass
        import cutlass.utils

        self._package = package
        self.facts = DeviceFacts(target)
        self.facts.install(cutlass.utils.HardwareInfo)
        self.cute: Any = importlib.import_module("cutlass.cute")
        self.dsl_cuda: int = cutlass.CUDA_VERSION.major
        self._torch: Any = torch
        self._interface: Any = importlib.import_module(f"{package}.interface")
        self._fake = FakeTensorMode()
        FakeTensor.__getitem__ = _indexed(torch.ops.aten)
        self._builder = CallBuilder(torch, package)
        self._steps: list[tuple[Any, _Context]] = []
        for item in vars(self._interface).values():
            if inspect.isclass(item) and issubclass(item, torch.autograd.Function):
                self._step_without_autograd(item)

    def slots(self) -> Mapping[str, SlotOwner]:
        """Return FA4's compile caches: every object of its modules that has one as an attribute."""
        return find_slots(self._package)

    def named_key(self, slot: str, key: object) -> Mapping[str, object]:
        """Return a key's values by the expressions that FA4's source builds it from, or numbers if none fits."""
        return named_key(self._package, slot, key)

    def main_slot(self, variant: Variant) -> str:
        """Return `fwd` or `bwd`."""
        return variant.pass_

    def call(self, call: Call) -> None:
        """Call FA4 as a job would: its public functions, and for `bwd` the backward of what they return."""
        variant = call.variant
        self._require_read([name for name, _ in variant.job_env])
        self._steps.clear()
        with self._fake:
            name, arguments = self._builder.build(variant, call.pass_tile)
            result = getattr(self._interface, name)(**arguments)
            if variant.pass_ == "bwd":
                out, lse = result
                autograd, context = self._steps[-1]
                empty_like = self._torch.empty_like
                with self._torch.no_grad():  # as torch calls it
                    autograd.backward(
                        context, empty_like(out), empty_like(lse) if variant.return_lse == "grad" else None
                    )

    def is_refusal(self, error: Exception) -> bool:
        """Return whether FA4 says so: it raises one of its three kinds of refusal, or has no such argument."""
        if isinstance(error, _Lacking):
            return True
        assert error.__traceback__ is not None
        *_, (frame, _line) = traceback.walk_tb(error.__traceback__)
        module = str(frame.f_globals.get("__name__", ""))
        if module == __name__:  # a release that does not have the argument
            return isinstance(error, TypeError) and "unexpected keyword argument" in str(error)
        words = isinstance(error, (AssertionError, ValueError, NotImplementedError))
        return words and module.startswith((f"{self._package}.", "quack."))

    def selection(self, kernel: object, key_fields: Mapping[str, object]) -> Selection:
        """Return tiles, cluster size and backend from the attributes of FA4's kernel object, else from the key."""
        return read_selection(kernel, key_fields, self._package)

    @contextmanager
    def looking_only(self) -> Iterator[None]:
        """Convert each layout of a tensor for the compiler once.

        Half the time of a plan goes there, for a compiler that only looks. A real compile must not have it: two
        arguments of one layout would become one.
        """
        modules = [module for module in loaded_modules(self._package) if hasattr(module, _CONVERT)]
        originals = [(module, getattr(module, _CONVERT)) for module in modules]
        for module, convert in originals:
            setattr(module, _CONVERT, _remembered(convert))
        try:
            yield
        finally:
            for module, convert in originals:
                setattr(module, _CONVERT, convert)

    def _require_read(self, variables: Sequence[str]) -> None:
        """Raise `_Lacking` for a variable that FA4's source does not name: it would change nothing."""
        for name in variables:
            if name not in _variables(Path(self._interface.__file__).parent):
                raise _Lacking(f"the installed FlashAttention reads no variable `{name}`")

    def _step_without_autograd(self, function: Any) -> None:
        # torch's autograd engine aborts the process for CUDA tensors without a CUDA build; the two halves of the
        # function are called as it would call them.
        def apply(*arguments: object) -> object:
            context = _Context()
            self._steps.append((function, context))
            with self._torch.no_grad():  # as torch calls it
                return function.forward(context, *arguments)

        function.apply = apply


@functools.cache
def _variables(folder: Path) -> frozenset[str]:
    """Return the names in FA4's source that can be variables."""
    sources = (file.read_text(encoding="utf-8") for file in sorted(folder.rglob("*.py")))
    return frozenset(name for source in sources for name in _VARIABLE.findall(source))


class _Lacking(NotImplementedError):
    """The installed release does not have what a variant names."""


class _Context:
    """What FA4 uses of torch's autograd context."""

    saved_tensors: tuple[object, ...] = ()

    def save_for_backward(self, *tensors: object) -> None:
        self.saved_tensors = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """Take note of nothing: gradients are handed over as they are."""

    def mark_non_differentiable(self, *tensors: object) -> None:
        """Take note of nothing: no graph is built."""


def _indexed(aten: Any) -> Any:
    """Return an indexing of tensors that needs no device.

    A CPU build of torch does not index a CUDA tensor, though it has no memory. The operators below do.
    """

    def index(tensor: Any, indices: Any) -> Any:
        indices = list(indices) if isinstance(indices, tuple) else [indices]
        if Ellipsis in indices:
            position = indices.index(Ellipsis)
            named = sum(item is not None for item in indices) - 1
            indices[position : position + 1] = [slice(None)] * (tensor.ndim - named)
        dimension = 0
        for item in indices:
            if item is None:
                tensor = aten.unsqueeze.default(tensor, dimension)
            elif isinstance(item, slice):
                start, stop, step = item.indices(tensor.shape[dimension])
                tensor = aten.slice.Tensor(tensor, dimension, start, stop, step)
            else:
                tensor = aten.select.int(tensor, dimension, item)
                continue
            dimension += 1
        return tensor

    return index


def _remembered(convert: Any) -> Any:
    found: dict[tuple[object, ...], object] = {}

    @functools.wraps(convert)
    def convert_layout(tensor: Any, *arguments: Any, **options: Any) -> Any:
        if tensor is None:
            return None
        layout = (
            tensor.dtype,
            tensor.shape,
            tensor.stride(),
            tensor.storage_offset(),
            arguments,
            tuple(options.items()),
        )
        if layout not in found:
            found[layout] = convert(tensor, *arguments, **options)
        return found[layout]

    return convert_layout

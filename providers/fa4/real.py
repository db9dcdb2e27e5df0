"""FlashAttention-4's calls made for real: tensors on the GPU, its public functions, autograd, a reference.

Imports torch and FA4 when it is made.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from ...errors import MachineError
from ..call import Call
from ..real import Outcome
from .arguments import Arguments
from .callers import Tensors, find_caller, keywords
from .expected import Expected, names_of, why_not
from .parents import import_module
from .placed import load
from .reference import distance
from .values import Values
from .variant import Variant, own

Tensor = Any

TOLERANCES: Mapping[str, float] = MappingProxyType({"bf16": 5e-3, "fp16": 5e-3, "fp8_e4m3": 6e-2, "fp8_e5m2": 1.2e-1})
"""The relative error that a call's results may have, by type: docs/how-to/canary.md says where they are from."""

_TIMES = 2  # what the first leaves behind, a semaphore say, must not spoil the second


class RealFlashAttn4:
    """FA4 in a process that has a GPU, as `RealCalls`."""

    device: ClassVar[str] = "cuda"

    def __init__(self, package: str, folder: Path | None = None) -> None:
        import torch

        if not torch.cuda.is_available():
            build = torch.version.cuda or "none"
            message = f"torch {torch.__version__} sees no GPU here (its CUDA: {build})"
            raise MachineError(message, "install a torch for the CUDA of this machine's driver")
        if folder is not None:
            load(package, folder)
        torch.set_float32_matmul_precision("highest")  # the reference must not be in TF32
        self._torch: Any = torch
        self._package = package
        self._interface: Any = import_module(f"{package}.interface", package)

    def is_sound(self) -> bool:
        """Return whether the GPU still computes in this process."""
        try:
            return float(self._torch.ones(8, device=self.device).sum()) == 8.0
        except Exception:
            return False

    def make(self, call: Call, seed: int) -> Outcome:
        """Make a call twice, and compare both times what it returns with the reference."""
        variant = own(call.variant)
        self._torch.manual_seed(seed)
        values = Values(self._torch, self._package, variant, seed, self.device)
        name, arguments = values.build(variant, call.pass_tile)
        if variant.caller is not None:
            return self._leave_to(variant.caller, variant, arguments, values)
        step = _Step(self._torch, getattr(self._interface, name), variant, arguments)
        reference, reason = Expected(variant, arguments, values), why_not(variant)
        expected: dict[str, Tensor] = {}
        errors: dict[str, float] = {}
        faults: list[str] = []
        for _ in range(_TIMES):
            results, seconds = self._timed(step)
            if not reason and not expected:
                try:
                    expected = reference.results(step.gradient, step.lse_gradient)
                except self._torch.cuda.OutOfMemoryError:
                    reason = "the GPU has too little memory for a reference in float32"
            for result, found in results.items():
                shown, used = _shown(result), reference.used(result, found)
                if not self._torch.isfinite(used.float()).all():
                    faults.append(f"{shown} is not finite")
                elif expected:
                    error = distance(used, reference.used(result, expected[result]))
                    errors[shown] = max(error, errors.get(shown, 0.0))
        tolerance = TOLERANCES[variant.dtype] if expected else None
        faults += [f"{shown} is off by {error:.1e}" for shown, error in errors.items() if error > (tolerance or 0)]
        return Outcome(errors, tolerance, reason, "; ".join(dict.fromkeys(faults)), seconds)

    def _timed(self, step: _Step) -> tuple[dict[str, Tensor], float]:
        self._torch.cuda.synchronize()
        start = time.perf_counter()
        results = step.run()
        self._torch.cuda.synchronize()
        return results, time.perf_counter() - start

    def _leave_to(self, caller: str, variant: Variant, arguments: Arguments, values: Values) -> Outcome:
        """Let the user's function make the call. What it returns to nobody can be compared with nothing."""
        function = find_caller(caller)
        tensors = _RealTensors(self._torch, arguments, self._backward)
        given = keywords(function, variant, values)
        seconds = 0.0
        for _ in range(_TIMES):
            self._torch.cuda.synchronize()
            start = time.perf_counter()
            function(self._interface, tensors, **given)
            self._torch.cuda.synchronize()
            seconds = time.perf_counter() - start
        found = [one.grad for one in arguments.values() if getattr(one, "grad", None) is not None]
        is_finite = all(bool(self._torch.isfinite(one.float()).all()) for one in found)
        return Outcome({}, None, why_not(variant), "" if is_finite else "a gradient is not finite", seconds)

    def _backward(self, out: Tensor, lse: Tensor = None) -> None:
        results = [one for one in (out, lse) if one is not None]
        self._torch.autograd.backward(results, [self._torch.randn_like(one) for one in results])


class _Step:
    """A call of one of FA4's functions, and for `bwd` its backward, with gradients that stay the same."""

    def __init__(self, torch: Any, function: Any, variant: Variant, arguments: Arguments) -> None:
        self._torch = torch
        self._function = function
        self._variant = variant
        self._arguments = arguments
        self.gradient: Tensor | None = None
        self.lse_gradient: Tensor | None = None

    def run(self) -> dict[str, Tensor]:
        """Return `out`, and for `bwd` the gradients of the inputs, by argument."""
        out, lse, *_ = self._function(**self._arguments)
        if self._variant.pass_ != "bwd":
            return {"out": out}
        if self.gradient is None:
            self.gradient = self._torch.randn_like(out)
            if self._variant.return_lse == "grad":
                self.lse_gradient = self._torch.randn_like(lse)
        names = names_of(self._variant, self._arguments)
        results, gradients = [out], [self.gradient]
        if self.lse_gradient is not None:
            results, gradients = [out, lse], [self.gradient, self.lse_gradient]
        found = self._torch.autograd.grad(results, [self._arguments[name] for name in names], gradients)
        return {"out": out, **dict(zip(names, found, strict=True))}


class _RealTensors(Tensors):
    """What a caller makes its call of, with values: what it asks for besides is zero, as nobody knows what it means."""

    def empty(self, *size: int, dtype: Any = None) -> Any:
        """Return another tensor of the device, of zeros."""
        return super().empty(*size, dtype=dtype).zero_()


def _shown(result: str) -> str:
    """Return what a result is called: `dq` is the gradient of `q`."""
    return "out" if result == "out" else f"d{result.removeprefix('learnable_')}"

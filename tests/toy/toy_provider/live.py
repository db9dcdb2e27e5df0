"""The library, imported: in the fork server only."""

from __future__ import annotations

import importlib
import traceback
from typing import Any

from fa4_precompile.cache.target import Target
from fa4_precompile.providers.call import Call
from fa4_precompile.providers.call import Variant as AnyVariant
from fa4_precompile.providers.dsl.live import Dsl
from fa4_precompile.providers.packages import is_in
from fa4_precompile.providers.protocol import LiveProvider

from .variant import DTYPES, Variant, own

_PACKAGE = "toy_kernels"
_ROWS = 64  # the kernels take any number


class LiveToyKernels(LiveProvider):
    """The library, imported in a process whose environment is that of `pinned_environment`."""

    def __init__(self, target: Target) -> None:
        self._dsl = Dsl(target)
        self._torch: Any = importlib.import_module("torch")
        self._library: Any = importlib.import_module(_PACKAGE)
        self._fake: Any = importlib.import_module("torch._subclasses.fake_tensor").FakeTensorMode()

    @property
    def dsl(self) -> Dsl:
        """The DSL of this process."""
        return self._dsl

    def call(self, call: Call) -> None:
        """Make a call with tensors that have no memory."""
        variant = own(call.variant)
        with self._fake:
            dtype = getattr(self._torch, DTYPES[variant.dtype])
            x = self._torch.empty(dict(call.runtime).get("rows", _ROWS), variant.width, dtype=dtype, device="cuda")
            if variant.op == "scale":
                self._library.scale(x, 2.0)
            else:
                self._library.add(x, x)

    def first_call(self) -> Variant:
        """Return a small call."""
        return Variant("scale", "fp32", 64)

    def refusal(self, error: Exception) -> str | None:
        """Return what the library itself says, by a `ValueError`."""
        *_, (frame, _line) = traceback.walk_tb(error.__traceback__)
        own_word = isinstance(error, ValueError) and is_in(str(frame.f_globals.get("__name__", "")), _PACKAGE)
        return str(error) if own_word else None

    def main_slot(self, variant: AnyVariant) -> str:
        """Return the slot of the one kernel that a call looks up."""
        return own(variant).op

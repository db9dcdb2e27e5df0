"""The calls of a spec, made for real: with the values and the reference of `canary`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from fa4_precompile.providers.fa4.arguments import Arguments
from fa4_precompile.providers.fa4.expected import Expected
from fa4_precompile.providers.fa4.values import Values
from fa4_precompile.providers.fa4.variant import Variant

Tensor = Any


@dataclass(frozen=True)
class Case:
    """A call: FlashAttention's function, its arguments, and what it should return."""

    function: str
    arguments: Arguments
    expected: Expected

    def run(self) -> Tensor:
        """Return FlashAttention's output."""
        import flash_attn.cute.interface as interface

        return getattr(interface, self.function)(**self.arguments)[0]

    def reference(self) -> Tensor:
        """Return the same in float32."""
        return self.expected.results(None, None)["out"]


def make(variant: Variant) -> Case:
    """Return the call of a variant, with random tensors; the same for the same variant."""
    values = Values(torch, "flash_attn.cute", variant, 0)
    function, arguments = values.build(variant, pass_tile=False)
    return Case(function, arguments, Expected(variant, arguments, values))
